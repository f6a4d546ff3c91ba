/* Correct: what a child of vfork does to its dispositions, masks and alternate stack is its own, though it runs in its
 * parent's memory. A child of a bare fork has its own memory, too. */
#include "program.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int calls;

static void mine(int number) {
    (void)number;
    calls++;
    siglongjmp(back, 1);
}

static void others(int number) {
    (void)number;
    _exit(9);
}

static void fault(void) {
    char *none = NULL;
    HIDE(none);
    write_byte(none);
}

static int status_of(pid_t child) {
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child);
    return status;
}

/* Everything in the child, which ends with 0 if it sees what it set. */
static void change(void) {
    struct sigaction other = {.sa_handler = others, .sa_flags = SA_ONSTACK}, now, ignore = {.sa_handler = SIG_IGN};
    sigset_t all, mask;
    static char memory[16384];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory}, before, after;
    int wrong = sigaltstack(&stack, &before) != 0 || before.ss_flags != SS_DISABLE;
    wrong |= sigaltstack(NULL, &after) != 0 || after.ss_sp != memory;
    wrong |= sigaction(SIGSEGV, NULL, &now) != 0 || now.sa_handler != mine;
    wrong |= sigaction(SIGUSR1, NULL, &now) != 0 || now.sa_handler != mine || !(now.sa_flags & SA_ONSTACK);
    wrong |= sigaction(SIGSEGV, &other, NULL) != 0 || sigaction(SIGUSR1, &ignore, NULL) != 0;
    wrong |= sigaction(SIGUSR2, &other, NULL) != 0;
    wrong |= sigaction(SIGSEGV, NULL, &now) != 0 || now.sa_handler != others;
    wrong |= sigaction(SIGUSR1, NULL, &now) != 0 || now.sa_handler != SIG_IGN;
    sigfillset(&all);
    wrong |= sigprocmask(SIG_SETMASK, &all, NULL) != 0 || sigprocmask(SIG_SETMASK, NULL, &mask) != 0;
    wrong |= sigismember(&mask, SIGSEGV) != 1 || sigismember(&mask, SIGUSR1) != 1;
    wrong |= signal(SIGBUS, SIG_DFL) != mine;
    _exit(wrong);
}

static void parent_is_as_before(void) {
    struct sigaction now;
    sigset_t mask;
    stack_t stack;
    EXPECT(sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_handler == mine);
    EXPECT(sigaction(SIGBUS, NULL, &now) == 0 && now.sa_handler == mine);
    EXPECT(sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == mine);
    EXPECT(sigaction(SIGUSR2, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    EXPECT(sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && !sigismember(&mask, SIGSEGV) && !sigismember(&mask, SIGUSR1));
    EXPECT(sigaltstack(NULL, &stack) == 0 && stack.ss_flags == SS_DISABLE);
    int before = calls;
    if (sigsetjmp(back, 1) == 0) fault();
    if (sigsetjmp(back, 1) == 0) raise(SIGUSR1);
    EXPECT(calls == before + 2);
}

int main(void) {
    struct sigaction action = {.sa_handler = mine}, relayed = {.sa_handler = mine, .sa_flags = SA_ONSTACK};
    release(object(10));
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    EXPECT(sigaction(SIGUSR1, &relayed, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        pid_t child = vfork();
        if (child == 0) change();
        EXPECT(status_of(child) == 0);
        parent_is_as_before();
        /* The child's own handler, and the default, of a fault. */
        child = vfork();
        if (child == 0) {
            signal(SIGSEGV, others);
            fault();
            _exit(1);
        }
        EXPECT(status_of(child) == 9 << 8);
        child = vfork();
        if (child == 0) {
            signal(SIGSEGV, SIG_DFL);
            fault();
            _exit(1);
        }
        int status = status_of(child);
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
        parent_is_as_before();
    }
    /* Without the hooks of the C library: a memory of its own, in which the child goes on as any process. */
    pid_t child = (pid_t)syscall(SYS_fork);
    if (child == 0) {
        parent_is_as_before();
        signal(SIGSEGV, SIG_DFL);
        struct sigaction now;
        EXPECT(sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
        EXPECT(sigaction(SIGSEGV, &action, NULL) == 0);
        parent_is_as_before();
        pid_t grandchild = vfork();
        if (grandchild == 0) change();
        EXPECT(status_of(grandchild) == 0);
        parent_is_as_before();
        _exit(0);
    }
    EXPECT(status_of(child) == 0);
    parent_is_as_before();
    return 0;
}
