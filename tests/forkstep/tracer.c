/* Lets one thread of a process under the library do an instruction at a time, and another fork in between. Arguments:
 * the library, its options, the traced program, the operations' numbers, MiB of address space, the chance of a fork
 * where an instruction runs for the first time, and a seed.
 *
 * Forks are drawn. Where an instruction runs for the nth time, the chance is an nth of that of the first time: what runs
 * often gets a few more than what runs once. With a lock held it is HELD_SHARE times as large, and counted apart. A
 * chance that is large enough makes a fork at every step.
 *
 * A lock is held from a `lock cmpxchg` of 0 for the thread's id that succeeds to one of the id for 0. */
#include "forkstep.h"
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/prctl.h>
#include <sys/user.h>

#define HELD_SHARE 8
/* In the operation of this name, one step in so many inside the library gets a signal, up to so many signals. */
#define SIGNALLED "signals"
#define SIGNAL_EVERY 4000
#define MOST_SIGNALS 20
/* Seconds after which a fork, or the traced process, hangs. */
#define LIMIT 30

static struct board *board;
static pid_t process;
/* The library's code: where it lies, and a copy. */
static unsigned long text, length, base;
static unsigned char *code;
/* Steps at each instruction: without and with a lock. */
static unsigned *visits[2];
static double chance;
static uint64_t state;

static void give_up(int status) {
    kill(process, SIGKILL);
    exit(status);
}

/* Finds the code of the library at `path` in the traced process. */
static void find_text(const char *path) {
    char name[64], line[600];
    const char *file_name = strrchr(path, '/') ? strrchr(path, '/') : path;
    snprintf(name, sizeof name, "/proc/%d/maps", process);
    FILE *maps = fopen(name, "r");
    base = 0, length = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        char permissions[8];
        if (!strstr(line, file_name) || sscanf(line, "%lx-%lx %7s", &start, &end, permissions) != 3) continue;
        if (!base) base = start;
        if (permissions[2] == 'x') text = start, length = end - start;
    }
    if (maps) fclose(maps);
    if (!length) say("the library is not loaded\n"), give_up(2);
    code = malloc(length + 16);
    for (int i = 0; i < 2; i++) visits[i] = calloc(length, sizeof **visits);
    snprintf(name, sizeof name, "/proc/%d/mem", process);
    int memory = open(name, O_RDONLY);
    if (pread(memory, code, length, text) != (ssize_t)length) say("its code cannot be read\n"), give_up(2);
    close(memory);
}

/* The register that a `lock cmpxchg` of 32 bits at `at` stores, as of this number; -1 for any other instruction. */
static int stored_by_exchange(const unsigned char *at) {
    if (*at++ != 0xf0) return -1;
    int rex = (*at & 0xf0) == 0x40 ? *at++ : 0;
    if (at[0] != 0x0f || at[1] != 0xb1 || rex & 8) return -1;
    return (at[2] >> 3 & 7) | (rex & 4 ? 8 : 0);
}

static unsigned value_of(const struct user_regs_struct *r, int number) {
    const unsigned long long all[] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                                      r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    return (unsigned)all[number];
}

/* One fork here, and its judgement. */
static void fork_at(unsigned long pc, int held, const char *operation) {
    unsigned number = board->answered;
    set(&board->asked, number + 1);
    if (!changed(&board->answered, number, LIMIT)) {
        say("fork hangs at library+0x%lx with %d locks held, in %s\n", pc - base, held, operation);
        give_up(1);
    }
    int status = board->status;
    if (!status) return;
    say("fork at library+0x%lx with %d locks held, in %s: ", pc - base, held, operation);
    if (status < 0) say("errno %d\n", -status);
    else if (WIFSIGNALED(status)) say("the child ends by signal %d\n", WTERMSIG(status));
    else say("the child's status is %d\n", WEXITSTATUS(status));
    give_up(1);
}

static int is_drawn(unsigned long at, int is_held) {
    double here = chance * (is_held ? HELD_SHARE : 1) / ++visits[is_held][at];
    return (draw(&state) & 0xffffff) < here * 0x1000000;
}

struct counts {
    long steps, inside, held, forks, forks_held, signals;
};

/* Follows the thread from here to its end. */
static void follow(pid_t thread, const char *operation, struct counts *counts) {
    int status, pending = 0, held = 0, exchange = 0;
    int signalled = !strcmp(operation, SIGNALLED);
    for (;;) {
        if (waitpid(thread, &status, __WALL) < 0) say("waitpid: %s\n", strerror(errno)), give_up(2);
        if (WIFEXITED(status) || WIFSIGNALED(status)) break;
        int signal = WSTOPSIG(status), event = status >> 16;
        struct user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, thread, 0, &registers)) continue;
        if (exchange && registers.eflags & 0x40) held += exchange;
        exchange = 0;
        unsigned long at = registers.rip - text;
        int is_step = signal == SIGTRAP && !event;
        counts->steps++;
        if (at < length && is_step) {
            counts->inside++, counts->held += held > 0;
            if (is_drawn(at, held > 0)) {
                counts->forks++, counts->forks_held += held > 0;
                fork_at(registers.rip, held, operation);
            }
            if (signalled && counts->signals < MOST_SIGNALS && !board->in_handler && draw(&state) % SIGNAL_EVERY == 0)
                pending = SIGUSR1, counts->signals++;
            int stored = stored_by_exchange(code + at);
            unsigned old = (unsigned)registers.rax;
            if (stored >= 0 && old == 0 && value_of(&registers, stored) == (unsigned)thread) exchange = 1;
            if (stored >= 0 && old == (unsigned)thread && value_of(&registers, stored) == 0) exchange = -1;
        }
        if (!is_step && !event) pending = signal;
        if (ptrace(PTRACE_SINGLESTEP, thread, 0, pending) && errno != ESRCH)
            say("PTRACE_SINGLESTEP: %s\n", strerror(errno)), give_up(2);
        pending = 0;
    }
    if (WIFSIGNALED(status)) {
        say("the traced process ends by signal %d in %s\n", WTERMSIG(status), operation);
        give_up(1);
    }
}

static void trace(int number, const char *library) {
    struct counts counts = {0};
    if (!changed(&board->traced, 0, LIMIT)) say("no thread to be traced\n"), give_up(1);
    pid_t thread = board->traced;
    board->traced = 0;
    if (ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_EXITKILL)) {
        int error = errno;
        say("PTRACE_SEIZE: %s\n", strerror(error));
        give_up(error == EPERM || error == ENOSYS ? NOT_PERMITTED : 2);
    }
    if (!code) find_text(library);
    if (ptrace(PTRACE_INTERRUPT, thread, 0, 0)) say("PTRACE_INTERRUPT: %s\n", strerror(errno)), give_up(2);
    set(&board->begin, thread);
    follow(thread, operations[number], &counts);
    say("%s: %ld steps, %ld in the library, %ld with a lock; %ld forks, %ld with a lock; %ld signals\n",
        operations[number], counts.steps, counts.inside, counts.held, counts.forks, counts.forks_held, counts.signals);
}

int main(int count, char **arguments) {
    if (count != 8) return 2;
    char path[64];
    int file = memfd_create("board", 0);
    if (file < 0 || ftruncate(file, sizeof *board)) return 2;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    state = strtoull(arguments[7], NULL, 0) | 1;
    /* A step is quickest where one processor does both sides of it. */
    int processor = sched_getcpu();
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor < 0 ? 0 : processor, &one);
    sched_setaffinity(0, sizeof one, &one);
    process = fork();
    if (process == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("LD_PRELOAD", arguments[1], 1);
        setenv("FENCEPOST_OPTIONS", arguments[2], 1);
        execl(arguments[3], arguments[3], path, arguments[4], arguments[5], NULL);
        _exit(127);
    }
    chance = atof(arguments[6]);
    for (const char *operation = arguments[4]; *operation; operation++) trace(*operation - '0', arguments[1]);
    int status;
    if (waitpid(process, &status, 0) < 0 || status) return say("the traced process's status is %x\n", status), 1;
    return 0;
}
