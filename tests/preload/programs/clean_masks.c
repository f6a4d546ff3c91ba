/* Correct: what is blocked comes back with contexts, jumps and handlers, as do the signals that were sent meanwhile. What is
 * told of a mask is what was set, also of a signal that nobody uses. */
#include "program.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigset_t none, all;
static volatile sig_atomic_t calls;
static ucontext_t outer, inner;
static char stack[65536];
static sigjmp_buf back;

static const int used[] = {SIGSEGV, SIGBUS, SIGSTKFLT, SIGUSR1};
enum { SEGV = 1, BUS = 2, UNUSED = 4, USER = 8 };

static sigset_t of(int bits) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 4; i++)
        if (bits >> i & 1) sigaddset(&set, used[i]);
    return set;
}

static int blocked(void) {
    sigset_t now;
    int bits = 0;
    EXPECT(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
    for (int i = 0; i < 4; i++) bits |= sigismember(&now, used[i]) << i;
    return bits;
}

static void change(int how, int bits) {
    sigset_t set = of(bits), old;
    int before = blocked();
    EXPECT(pthread_sigmask(how, &set, &old) == 0);
    for (int i = 0; i < 4; i++) EXPECT(sigismember(&old, used[i]) == (before >> i & 1));
    EXPECT(blocked() == (how == SIG_BLOCK ? before | bits : how == SIG_UNBLOCK ? before & ~bits : bits));
}

static void count(int number) {
    (void)number;
    calls++;
}

/* What a handler changes is gone with it. */
static void changing(int number) {
    (void)number;
    calls++;
    pthread_sigmask(SIG_SETMASK, calls % 2 == 0 ? &none : &all, NULL);
}

static void jump(int number) {
    (void)number;
    calls++;
    release(object(100));
    siglongjmp(back, 1);
}

static void other_stack(void) {
    for (;;) {
        int before = blocked();
        change(SIG_BLOCK, SEGV | BUS | UNUSED);
        swapcontext(&inner, &outer);
        EXPECT(blocked() == (before | SEGV | BUS | UNUSED));
        change(SIG_SETMASK, USER);
        swapcontext(&inner, &outer);
        EXPECT(blocked() == USER);
    }
}

static void every_set(void) {
    for (int first = 0; first < 16; first++)
        for (int second = 0; second < 16; second++) {
            change(SIG_SETMASK, first), change(SIG_BLOCK, second);
            change(SIG_SETMASK, first), change(SIG_UNBLOCK, second);
            change(SIG_SETMASK, first), change(SIG_SETMASK, second);
        }
    change(SIG_SETMASK, 0);
}

static void contexts(void) {
    EXPECT(getcontext(&inner) == 0);
    inner.uc_stack.ss_sp = stack, inner.uc_stack.ss_size = sizeof stack, inner.uc_link = NULL;
    makecontext(&inner, other_stack, 0);
    for (int i = 0; i < 10; i++) {
        calls = 0;
        change(SIG_SETMASK, i % 3 == 0 ? USER : 0);
        int before = blocked();
        EXPECT(swapcontext(&outer, &inner) == 0 && blocked() == before);
        EXPECT(raise(SIGSEGV) == 0 && calls == 1);
        EXPECT(swapcontext(&outer, &inner) == 0 && blocked() == before);
        EXPECT(raise(SIGSEGV) == 0 && kill(getpid(), SIGBUS) == 0 && calls == 3);
    }
    change(SIG_SETMASK, 0);
}

static void jumps(void) {
    for (int i = 0; i < 4; i++) {
        calls = 0;
        change(SIG_SETMASK, i % 2 == 0 ? 0 : USER);
        if (sigsetjmp(back, 1) == 0) {
            change(SIG_BLOCK, SEGV | BUS | UNUSED | USER);
            EXPECT(raise(SIGSEGV) == 0 && calls == 0);
            siglongjmp(back, 1);
        }
        /* What was sent comes when the jump unblocks it, and what is sent comes at once. */
        EXPECT(blocked() == (i % 2 == 0 ? 0 : USER) && calls == 1);
        EXPECT(raise(SIGSEGV) == 0 && calls == 2);
    }
    change(SIG_SETMASK, 0);
}

static void handlers(void) {
    signal(SIGUSR1, changing);
    for (int i = 0; i < 4; i++) {
        calls = i;
        change(SIG_SETMASK, 0);
        int before = blocked();
        EXPECT(raise(SIGUSR1) == 0 && calls == i + 1 && blocked() == before);
        EXPECT(raise(SIGSEGV) == 0 && calls == i + 2);
    }
    change(SIG_SETMASK, 0);
    signal(SIGSEGV, jump);
    calls = 0;
    for (volatile int i = 0; i < 5; i++)
        if (sigsetjmp(back, 1) == 0) *(volatile int *)(uintptr_t)8 = 1;
    EXPECT(calls == 5 && blocked() == 0);
    signal(SIGSEGV, count);
}

static void *sender(void *number) {
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    usleep(20000);
    EXPECT(kill(getpid(), *(int *)number) == 0);
    return NULL;
}

/* A signal that is blocked, and allowed while a wait lasts. */
static void waits(void) {
    for (int i = 0; i < 12; i++) {
        pthread_t other;
        int number = used[i % 2 == 0 ? 0 : 1 + (i % 4 == 1) * 2], result;
        signal(number, count);
        calls = 0;
        change(SIG_SETMASK, SEGV | BUS | USER);
        EXPECT(pthread_create(&other, NULL, sender, &number) == 0);
        switch (i / 2 % 3) {
        case 0: result = sigsuspend(&none); break;
        case 1: result = ppoll(NULL, 0, NULL, &none); break;
        default: result = pselect(0, NULL, NULL, NULL, NULL, &none);
        }
        EXPECT(result == -1 && errno == EINTR && calls == 1 && blocked() == (SEGV | BUS | USER));
        EXPECT(pthread_join(other, NULL) == 0);
        change(SIG_SETMASK, 0);
        EXPECT(calls == 1);
    }
}

static void *thread(void *expected) {
    EXPECT(blocked() == *(int *)expected);
    every_set();
    jumps();
    return NULL;
}

int main(void) {
    sigemptyset(&none), sigfillset(&all);
    signal(SIGSEGV, count), signal(SIGBUS, count), signal(SIGUSR1, count);
    every_set();
    contexts();
    jumps();
    handlers();
    waits();
    for (int bits = 0; bits < 16; bits++) {
        pthread_t other;
        int status = -1;
        change(SIG_SETMASK, bits);
        EXPECT(pthread_create(&other, NULL, thread, &bits) == 0 && pthread_join(other, NULL) == 0);
        EXPECT(blocked() == bits);
        pid_t child = fork();
        if (child == 0) _exit(blocked());
        EXPECT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == bits);
        child = vfork();
        if (child == 0) {
            sigset_t now;
            pthread_sigmask(SIG_SETMASK, &none, &now);
            _exit(sigismember(&now, SIGSEGV) | sigismember(&now, SIGBUS) << 1);
        }
        EXPECT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == (bits & 3) && blocked() == bits);
    }
    return 0;
}
