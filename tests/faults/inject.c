/* Runs a program, with its threads and children, and lets system calls of the library fail at chosen sites.
 *
 *   inject list LIBRARY -- PROGRAM ARGUMENTS      prints each site: its offset in the library, the call, how often
 *   inject SITE CALL ANSWER WHEN LIBRARY -- ...   the call at the site answers ANSWER (an errno, or 0 for a success that
 *                                                 does nothing): the WHENth time only, or with `+` behind it from then on,
 *                                                 or `all` times, or a `third` of them
 *
 * A site is where the library's function returns to that makes the call: each place in the source has one of its own for
 * each copy that the compiler made. `any` is every site of the call. The environment of PROGRAM is the variable
 * INJECT_PRELOAD as LD_PRELOAD, so that this program runs without the library.
 *
 * Only calls that stand in the filter below stop; those that the program or the C library makes go on at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static const int CALLS[] = {
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_msync, SYS_munlock, SYS_mlockall, SYS_process_madvise,
    SYS_pkey_alloc, SYS_pkey_mprotect, SYS_prctl, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_futex, SYS_getrandom, SYS_openat, SYS_faccessat, SYS_read, SYS_pread64,
    SYS_write, SYS_close, SYS_fstat, SYS_fcntl, SYS_getdents64, SYS_ppoll, SYS_clock_gettime, SYS_nanosleep, SYS_gettid,
    SYS_getpid, SYS_sched_getscheduler, SYS_prlimit64, SYS_getrlimit, SYS_sysinfo, SYS_process_vm_readv, SYS_membarrier,
    SYS_waitid, SYS_tgkill,
};
enum { COUNT = sizeof CALLS / sizeof *CALLS, MOST_SITES = 4096, MOST_PROCESSES = 4096 };

static struct { unsigned long at; int call; unsigned long times; } sites[MOST_SITES];
static int known;
/* Where the library's code lies in each process: an address space is known by the process that executed the program. */
static struct { pid_t process; unsigned long start, end, base; } processes[MOST_PROCESSES];
static const char *library;

static unsigned long wanted_site, wanted_time;
static int wanted_call = -1, answer, third, every, onwards, listing;
static unsigned long matched, injected;

static void permitted(int condition) { if (!condition) _exit(77); }

static void install(void) {
    struct sock_filter whole[COUNT + 3];
    whole[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        whole[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i], COUNT - i, 0);
    whole[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    whole[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    struct sock_fprog program = {COUNT + 3, whole};
    permitted(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    permitted(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
}

/* The process of a thread. */
static pid_t process_of(pid_t thread) {
    char name[64], line[256];
    pid_t process = thread;
    snprintf(name, sizeof name, "/proc/%d/status", thread);
    FILE *file = fopen(name, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Tgid: %d", &process) == 1) break;
    if (file) fclose(file);
    return process;
}

static int slot_of(pid_t process) {
    for (int i = 0; i < MOST_PROCESSES; i++)
        if (processes[i].process == process || !processes[i].process) return processes[i].process = process, i;
    fprintf(stderr, "inject: too many processes\n");
    exit(2);
}

static void forget(pid_t process) {
    int slot = slot_of(process);
    processes[slot].start = processes[slot].end = 0;
}

/* Whether an address lies in the library's code; `offset` is then its offset in the library. */
static int in_library(pid_t thread, unsigned long address, unsigned long *offset) {
    static pid_t last_thread, last_process;
    if (thread != last_thread) last_thread = thread, last_process = process_of(thread);
    int slot = slot_of(last_process);
    if (!processes[slot].end) {
        char name[64], line[4400];
        unsigned long base = 0;
        snprintf(name, sizeof name, "/proc/%d/maps", last_process);
        FILE *maps = fopen(name, "r");
        while (maps && fgets(line, sizeof line, maps)) {
            unsigned long start, end;
            char permissions[8];
            if (!strstr(line, library) || sscanf(line, "%lx-%lx %7s", &start, &end, permissions) != 3) continue;
            if (!base) base = start;
            if (permissions[2] == 'x') processes[slot].start = start, processes[slot].end = end, processes[slot].base = base;
        }
        if (maps) fclose(maps);
    }
    if (address < processes[slot].start || address >= processes[slot].end) return 0;
    *offset = address - processes[slot].base;
    return 1;
}

static const char *say(int call) {
    static const struct { int call; const char *name; } names[] = {
        {SYS_mmap, "mmap"}, {SYS_munmap, "munmap"}, {SYS_mprotect, "mprotect"}, {SYS_mremap, "mremap"},
        {SYS_madvise, "madvise"}, {SYS_msync, "msync"}, {SYS_munlock, "munlock"}, {SYS_mlockall, "mlockall"},
        {SYS_process_madvise, "process_madvise"}, {SYS_pkey_alloc, "pkey_alloc"}, {SYS_pkey_mprotect, "pkey_mprotect"},
        {SYS_prctl, "prctl"}, {SYS_rt_sigaction, "rt_sigaction"}, {SYS_rt_sigprocmask, "rt_sigprocmask"},
        {SYS_rt_sigpending, "rt_sigpending"}, {SYS_rt_sigtimedwait, "rt_sigtimedwait"}, {SYS_sigaltstack, "sigaltstack"},
        {SYS_futex, "futex"}, {SYS_getrandom, "getrandom"}, {SYS_openat, "openat"}, {SYS_faccessat, "faccessat"},
        {SYS_read, "read"}, {SYS_pread64, "pread64"}, {SYS_write, "write"}, {SYS_close, "close"}, {SYS_fstat, "fstat"},
        {SYS_fcntl, "fcntl"}, {SYS_getdents64, "getdents64"}, {SYS_ppoll, "ppoll"}, {SYS_clock_gettime, "clock_gettime"},
        {SYS_nanosleep, "nanosleep"}, {SYS_gettid, "gettid"}, {SYS_getpid, "getpid"},
        {SYS_sched_getscheduler, "sched_getscheduler"}, {SYS_prlimit64, "prlimit64"}, {SYS_getrlimit, "getrlimit"},
        {SYS_sysinfo, "sysinfo"}, {SYS_process_vm_readv, "process_vm_readv"}, {SYS_membarrier, "membarrier"},
        {SYS_waitid, "waitid"}, {SYS_tgkill, "tgkill"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].call == call) return names[i].name;
    return "?";
}

static void at_call(pid_t thread) {
    struct user_regs_struct registers;
    unsigned long offset, site;
    if (ptrace(PTRACE_GETREGS, thread, 0, &registers)) return;
    if (!in_library(thread, registers.rip, &offset)) return;
    int call = (int)registers.orig_rax;
    /* The function that makes the call has no frame: its return address is on top. */
    errno = 0;
    unsigned long back = ptrace(PTRACE_PEEKDATA, thread, registers.rsp, 0);
    if (errno || !in_library(thread, back, &site)) site = offset;
    if (listing) {
        int i = 0;
        while (i < known && (sites[i].at != site || sites[i].call != call)) i++;
        if (i == MOST_SITES) return;
        if (i == known) sites[known].at = site, sites[known++].call = call;
        sites[i].times++;
        return;
    }
    if (call != wanted_call || (wanted_site && site != wanted_site)) return;
    matched++;
    int now = every || (third ? (matched * 2654435761u >> 7) % 3 == 0
                                  : onwards ? matched >= wanted_time : matched == wanted_time);
    if (!now) return;
    injected++;
    registers.orig_rax = -1;
    registers.rax = -(long)answer;
    ptrace(PTRACE_SETREGS, thread, 0, &registers);
}

int main(int count, char **arguments) {
    int at = 1;
    if (count > at && strcmp(arguments[at], "list") == 0) listing = 1, at++;
    else if (count > at + 3) {
        wanted_site = strcmp(arguments[at], "any") ? strtoul(arguments[at], NULL, 16) : 0;
        for (int i = 0; i < COUNT; i++)
            if (strcmp(say(CALLS[i]), arguments[at + 1]) == 0) wanted_call = CALLS[i];
        answer = atoi(arguments[at + 2]);
        every = strcmp(arguments[at + 3], "all") == 0;
        third = strcmp(arguments[at + 3], "third") == 0;
        wanted_time = strtoul(arguments[at + 3], NULL, 10);
        onwards = strchr(arguments[at + 3], '+') != NULL;
        at += 4;
    }
    if (count < at + 3) return fprintf(stderr, "inject: arguments\n"), 2;
    library = arguments[at++];
    at += strcmp(arguments[at], "--") == 0;
    pid_t first = fork();
    if (first == 0) {
        permitted(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
        raise(SIGSTOP);
        const char *preload = getenv("INJECT_PRELOAD");
        if (preload) setenv("LD_PRELOAD", preload, 1);
        install();
        execvp(arguments[at], arguments + at);
        _exit(127);
    }
    int status, ended = -1;
    if (waitpid(first, &status, 0) != first || !WIFSTOPPED(status)) return 77;
    long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                   PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SETOPTIONS, first, 0, options)) return 77;
    ptrace(PTRACE_CONT, first, 0, 0);
    pid_t thread;
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == first) ended = status;
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP) at_call(thread), signal = 0;
        else if (event == PTRACE_EVENT_EXEC) forget(thread), signal = 0;
        else if (event) signal = 0;
        /* The first stop of a new thread. */
        else if (signal == SIGSTOP) signal = 0;
        ptrace(PTRACE_CONT, thread, 0, signal);
    }
    for (int i = 0; listing && i < known; i++)
        dprintf(9, "%lx %s %lu\n", sites[i].at, say(sites[i].call), sites[i].times);
    if (!listing) dprintf(9, "%lu of %lu\n", injected, matched);
    if (WIFSIGNALED(ended)) {
        signal(WTERMSIG(ended), SIG_DFL);
        kill(getpid(), WTERMSIG(ended));
    }
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : 2;
}
