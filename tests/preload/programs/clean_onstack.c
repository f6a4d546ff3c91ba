/* Correct: handlers with SA_ONSTACK run where the kernel runs them: on the program's alternate stack, or where there is
 * none on the stack that they interrupt. What was set is reported back as it was set. */
#include "program.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

enum { STACK = 65536, DEEP = 300 * 1024 };
static __thread char *low;
static __thread size_t size;
static __thread volatile sig_atomic_t calls, on_stack, self_blocked, other_blocked, code;
static __thread sigjmp_buf back;

static int is_on(const void *at) { return low != NULL && (const char *)at >= low && (const char *)at < low + size; }

static void look(int signal_number, siginfo_t *info, void *context) {
    sigset_t now;
    char here = 0;
    (void)context;
    calls++;
    on_stack = is_on(&here);
    code = info->si_code;
    EXPECT(info->si_signo == signal_number);
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    self_blocked = sigismember(&now, signal_number);
    other_blocked = sigismember(&now, SIGUSR2);
    EXPECT(!sigismember(&now, SIGTERM));
    stack_t stack;
    EXPECT(sigaltstack(NULL, &stack) == 0);
    EXPECT(stack.ss_flags == (low == NULL ? SS_DISABLE : on_stack ? SS_ONSTACK : 0) && stack.ss_size == size);
    EXPECT((char *)stack.ss_sp == low);
    if (on_stack) EXPECT(sigaltstack(&stack, NULL) == -1 && errno == EPERM);
    for (int i = 1; i < 20; i++) release(object(i * 60));
}

/* More than any stack of the library's. */
static void large(int number) {
    volatile char room[DEEP];
    memset((char *)room, number, sizeof room);
    calls++;
    on_stack = is_on((const void *)room);
}

static void jump(int number) {
    (void)number;
    calls++;
    siglongjmp(back, 1);
}

/* Another signal comes while the first is handled. */
static void nest(int number) {
    char here = 0;
    calls++;
    EXPECT(is_on(&here));
    if (number == SIGUSR1) EXPECT(raise(SIGUSR2) == 0);
}

static void set(int number, void *handler, int flags) {
    struct sigaction action = {.sa_flags = flags}, old;
    action.sa_sigaction = (void (*)(int, siginfo_t *, void *))handler;
    sigemptyset(&action.sa_mask);
    if (flags & SA_SIGINFO) sigaddset(&action.sa_mask, SIGUSR2);
    EXPECT(sigaction(number, &action, NULL) == 0 && sigaction(number, NULL, &old) == 0);
    EXPECT(old.sa_sigaction == action.sa_sigaction && (old.sa_flags & ~0x04000000) == flags);
    EXPECT(sigismember(&old.sa_mask, SIGUSR2) == ((flags & SA_SIGINFO) != 0) && !sigismember(&old.sa_mask, SIGHUP));
}

static void use_stack(char *memory, size_t bytes) {
    stack_t stack = {.ss_sp = memory, .ss_size = bytes, .ss_flags = memory == NULL ? SS_DISABLE : 0};
    EXPECT(sigaltstack(&stack, NULL) == 0);
    low = memory, size = bytes;
}

static double kept(double seed) {
    volatile double values[4] = {seed, seed * 2, seed * 3, seed * 4};
    double sum = values[0] + values[1];
    EXPECT(raise(SIGUSR1) == 0);
    return sum + values[2] + values[3];
}

static void flags_and_masks(void) {
    int had = low != NULL;
    set(SIGUSR1, (void *)look, SA_SIGINFO | SA_ONSTACK);
    calls = 0;
    for (int i = 0; i < 3; i++) EXPECT(kept(1.5) == 15.0);
    EXPECT(calls == 3 && on_stack == had && self_blocked == 1 && other_blocked == 1 && code == SI_TKILL);
    set(SIGUSR1, (void *)look, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART);
    EXPECT(raise(SIGUSR1) == 0 && self_blocked == 0 && other_blocked == 1);
    set(SIGUSR1, (void *)look, SA_SIGINFO | SA_NODEFER);
    EXPECT(raise(SIGUSR1) == 0 && calls == 5 && !on_stack);
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    EXPECT(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
    /* Out of the handler by a jump, again and again. */
    set(SIGUSR1, (void *)jump, SA_ONSTACK);
    for (volatile int i = 0; i < 50; i++)
        if (sigsetjmp(back, 1) == 0) raise(SIGUSR1);
    EXPECT(calls == 55);
}

static void *in_thread(void *unused) {
    (void)unused;
    release(object(24));
    stack_t none;
    EXPECT(sigaltstack(NULL, &none) == 0 && none.ss_flags == SS_DISABLE && none.ss_size == 0 && none.ss_sp == NULL);
    flags_and_masks();
    set(SIGUSR1, (void *)large, SA_ONSTACK);
    calls = 0;
    EXPECT(raise(SIGUSR1) == 0 && calls == 1 && !on_stack);

    use_stack(object(STACK), STACK);
    flags_and_masks();
    set(SIGUSR1, (void *)nest, SA_ONSTACK);
    set(SIGUSR2, (void *)nest, SA_ONSTACK);
    calls = 0;
    EXPECT(raise(SIGUSR1) == 0 && calls == 2);
    use_stack(object(2 * DEEP), 2 * DEEP);
    set(SIGUSR1, (void *)large, SA_ONSTACK);
    EXPECT(raise(SIGUSR1) == 0 && calls == 3 && on_stack);

    char *memory = low;
    stack_t small = {.ss_sp = memory, .ss_size = 1000}, odd = {.ss_sp = memory, .ss_size = STACK, .ss_flags = 64}, now;
    EXPECT(sigaltstack(&small, NULL) == -1 && errno == ENOMEM);
    EXPECT(sigaltstack(&odd, NULL) == -1 && errno == EINVAL);
    EXPECT(sigaltstack(NULL, &now) == 0 && (char *)now.ss_sp == memory && now.ss_flags == 0);
#ifdef SS_AUTODISARM
    stack_t once = {.ss_sp = memory, .ss_size = 2 * DEEP, .ss_flags = SS_AUTODISARM};
    EXPECT(sigaltstack(&once, &now) == 0 && (char *)now.ss_sp == memory);
    EXPECT(raise(SIGUSR1) == 0 && calls == 4 && on_stack);
    EXPECT(sigaltstack(NULL, &now) == 0 && now.ss_flags == (int)SS_AUTODISARM);
#endif
    use_stack(NULL, 0);
    EXPECT(sigaltstack(NULL, &now) == 0 && now.ss_flags == SS_DISABLE);
    release(memory);
    return NULL;
}

/* What `signal`, one shot and `siginterrupt` leave behind. */
static void kin(void) {
    struct sigaction old;
    set(SIGUSR1, (void *)look, SA_SIGINFO | SA_ONSTACK);
    EXPECT((void *)signal(SIGUSR1, jump) == (void *)look);
    EXPECT(signal(SIGUSR1, SIG_IGN) == jump && raise(SIGUSR1) == 0);
    EXPECT(siginterrupt(SIGUSR1, 1) == 0 && signal(SIGUSR1, jump) == SIG_IGN);
    EXPECT(sigaction(SIGUSR1, NULL, &old) == 0 && !(old.sa_flags & SA_RESTART));
    EXPECT(siginterrupt(SIGUSR1, 0) == 0 && sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_flags & SA_RESTART);
    set(SIGUSR1, (void *)look, SA_SIGINFO | SA_ONSTACK | SA_RESETHAND);
    EXPECT(raise(SIGUSR1) == 0 && sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
    EXPECT(signal(SIGKILL, jump) == SIG_ERR && errno == EINVAL && signal(65, jump) == SIG_ERR && errno == EINVAL);
    EXPECT(signal(32, jump) == SIG_ERR && errno == EINVAL);
    /* A system call goes on after the handler, or does not. */
    int ends[2];
    char byte;
    EXPECT(pipe(ends) == 0);
    for (int restart = 0; restart < 2; restart++) {
        set(SIGALRM, (void *)look, SA_SIGINFO | SA_ONSTACK | (restart ? SA_RESTART : 0));
        pid_t child = fork();
        if (child == 0) {
            struct timespec time = {0, 100000000};
            for (int i = 0; i < 3; i++) nanosleep(&time, NULL), kill(getppid(), SIGALRM);
            _exit(restart ? write(ends[1], "x", 1) != 1 : 0);
        }
        ssize_t got = read(ends[0], &byte, 1);
        EXPECT(restart ? got == 1 : got == -1 && errno == EINTR);
        while (waitpid(child, NULL, 0) == -1) EXPECT(errno == EINTR);
    }
}

int main(void) {
    in_thread(NULL);
    pthread_t threads[8];
    EXPECT(pthread_create(&threads[0], NULL, in_thread, NULL) == 0 && pthread_join(threads[0], NULL) == 0);
    kin();
    pid_t child = fork();
    if (child == 0) {
        in_thread(NULL);
        _exit(42);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    return 0;
}
