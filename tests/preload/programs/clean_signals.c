/* Correct: what a program sets for SIGSEGV is reported back as it was set, and done: flags, masks, one shot,
 * stacks, in the main thread and in another. */
#include "program.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static char *closed;
static volatile sig_atomic_t calls, on_stack, blocked_self, blocked_other, code;
static char *volatile stack_low;
enum { STACK = 65536 };

static void look(int number) {
    sigset_t now;
    char here;
    calls++;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    blocked_self = sigismember(&now, number);
    blocked_other = sigismember(&now, SIGUSR1);
    on_stack = &here >= stack_low && &here < stack_low + STACK;
    for (int i = 1; i < 20; i++) release(object(i * 50));
}

/* Opens the page and returns, so that the access is made again. */
static void mend(int number, siginfo_t *info, void *context) {
    (void)context;
    look(number);
    code = info->si_code;
    EXPECT(info->si_signo == SIGSEGV && (char *)info->si_addr == closed);
    EXPECT(mprotect(closed, 4096, PROT_READ | PROT_WRITE) == 0);
}

static void jump(int number) {
    look(number);
    siglongjmp(back, 1);
}

static void fault(void) {
    volatile double kept = 1.5 + calls;
    EXPECT(mprotect(closed, 4096, PROT_NONE) == 0);
    write_byte(closed);
    EXPECT(closed[0] == 'B' && kept == 0.5 + calls);
}

static void set(void *handler, int flags, int mask) {
    struct sigaction action = {.sa_flags = flags}, old;
    if (flags & SA_SIGINFO) action.sa_sigaction = (void (*)(int, siginfo_t *, void *))handler;
    else action.sa_handler = (void (*)(int))handler;
    sigemptyset(&action.sa_mask);
    if (mask) sigaddset(&action.sa_mask, mask);
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0);
    EXPECT(sigaction(SIGSEGV, NULL, &old) == 0);
    EXPECT(old.sa_handler == action.sa_handler && (old.sa_flags & ~0x04000000) == flags);
    EXPECT(!mask || sigismember(&old.sa_mask, mask));
    EXPECT(!sigismember(&old.sa_mask, SIGUSR2));
}

static void *all(void *unused) {
    (void)unused;
    stack_t stack = {.ss_sp = object(STACK), .ss_size = STACK};
    stack_low = stack.ss_sp;
    EXPECT(sigaltstack(&stack, NULL) == 0);
    set((void *)mend, SA_SIGINFO, SIGUSR1);
    calls = 0;
    for (int i = 0; i < 3; i++) {
        fault();
        EXPECT(calls == i + 1 && !on_stack && blocked_self == 1 && blocked_other == 1 && code == SEGV_ACCERR);
    }
    set((void *)mend, SA_SIGINFO | SA_ONSTACK | SA_NODEFER, 0);
    fault();
    EXPECT(calls == 4 && on_stack && blocked_self == 0 && blocked_other == 0);
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    EXPECT(!sigismember(&now, SIGSEGV) && !sigismember(&now, SIGUSR1));

    /* Once, and then the default. */
    set((void *)mend, SA_SIGINFO | SA_RESETHAND, 0);
    fault();
    EXPECT(signal(SIGSEGV, jump) == SIG_DFL);
    for (int i = 0; i < 3; i++)
        if (sigsetjmp(back, 1) == 0) {
            mprotect(closed, 4096, PROT_NONE);
            write_byte(closed);
        }
    EXPECT(calls == 8 && !on_stack);
    EXPECT(signal(SIGSEGV, SIG_IGN) == jump);
    EXPECT(raise(SIGSEGV) == 0);
    EXPECT(signal(SIGSEGV, SIG_DFL) == SIG_IGN);

    /* Sent by somebody. */
    signal(SIGSEGV, (void (*)(int))look);
    EXPECT(raise(SIGSEGV) == 0 && calls == 9);
    stack = (stack_t){.ss_flags = SS_DISABLE};
    EXPECT(sigaltstack(&stack, NULL) == 0);
    return NULL;
}

/* The recursion, and what it may not be optimised into. */
static int deep(int n) {
    volatile char room[2000];
    room[n % 2000] = (char)n;
    return deep(n + 1) + room[n % 1000];
}

static int ends_by(int how) {
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        stack_t none = {.ss_flags = SS_DISABLE};
        if (how & 1) sigaltstack(&none, NULL);
        if (how & 2) set((void *)mend, SA_SIGINFO, 0);
        else signal(SIGSEGV, SIG_DFL);
        if (how & 4) raise(SIGSEGV);
        close(2);
        _exit(deep(0));
    }
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int main(void) {
    closed = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(closed != MAP_FAILED);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, all, NULL) == 0 && pthread_join(thread, NULL) == 0);
    all(NULL);
    /* A stack overflow, with an alternate stack and without, with a handler that cannot run on it. */
    for (int how = 0; how < 6; how++) EXPECT(ends_by(how) == SIGSEGV);
    return 0;
}
