/* Correct: what Go's runtime does in a program that calls C. It sets handlers by the C library's function, but asks
 * the kernel for each thread's alternate stack, takes the one that it finds or sets its own, changes masks by the kernel, and
 * insists that its handlers run on the stack that the kernel names. Nobody knows of it but by the note. */
#include "program.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

__asm__(".pushsection .note.go.buildid,\"a\",@note\n"
        ".balign 4\n.long 4, 4, 4\n.ascii \"Go\\0\\0test\"\n.popsection");

enum { STACK = 32768, THREADS = 8, ROUNDS = 50 };
static __thread char *low;
static __thread size_t size;
static __thread volatile sig_atomic_t faults, others;

static void signal_stack(const stack_t *new, stack_t *old) { EXPECT(syscall(SYS_sigaltstack, new, old) == 0); }

static unsigned long mask(int how, const unsigned long *set) {
    unsigned long old = 0;
    EXPECT(syscall(SYS_rt_sigprocmask, how, set, &old, 8) == 0);
    return old;
}

static void handler(int number, siginfo_t *info, void *context) {
    char here;
    stack_t now;
    EXPECT(&here >= low && &here < low + size);
    signal_stack(NULL, &now);
    EXPECT(now.ss_flags == SS_ONSTACK && (char *)now.ss_sp == low && now.ss_size == size);
    EXPECT(info->si_signo == number);
    /* All are blocked, as was asked for. */
    EXPECT(~mask(SIG_BLOCK, NULL) == (1UL << (SIGKILL - 1) | 1UL << (SIGSTOP - 1) | 3UL << 31));
    if (number == SIGSEGV && info->si_code > 0) {
        /* As to a function that raises the error where the fault was. */
        greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
        registers[REG_RIP] = registers[REG_RBX];
        faults++;
    } else {
        others++;
    }
}

static void fault(void) {
    __asm__ volatile("lea 1f(%%rip), %%rbx\n xor %%eax, %%eax\n movl $1, (%%rax)\n1:" ::: "rax", "rbx", "memory", "cc");
}

/* What a thread of the runtime's begins with. */
static int begin(void) {
    stack_t now;
    unsigned long none = 0;
    signal_stack(NULL, &now);
    int found = (now.ss_flags & SS_DISABLE) == 0;
    if (!found) {
        now = (stack_t){.ss_sp = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = STACK};
        signal_stack(&now, NULL);
    }
    low = now.ss_sp, size = now.ss_size;
    mask(SIG_SETMASK, &none);
    return found;
}

static void rounds(void) {
    for (int i = 1; i <= ROUNDS; i++) {
        release(object(i * 100));
        faults = others = 0;
        fault();
        EXPECT(raise(SIGURG) == 0 && raise(SIGPROF) == 0);
        /* Sent, it comes at once as well, unless it is blocked; both functions know it. */
        EXPECT(raise(SIGSEGV) == 0);
        EXPECT(faults == 1 && others == 3);
        sigset_t both, old;
        sigemptyset(&both);
        sigaddset(&both, SIGSEGV), sigaddset(&both, SIGBUS);
        EXPECT(pthread_sigmask(SIG_BLOCK, &both, &old) == 0 && !sigismember(&old, SIGSEGV));
        EXPECT(mask(SIG_BLOCK, NULL) == (1UL << (SIGSEGV - 1) | 1UL << (SIGBUS - 1)));
        EXPECT(raise(SIGSEGV) == 0 && others == 3);
        unsigned long none = 0;
        mask(SIG_SETMASK, &none);
        EXPECT(others == 4);
        EXPECT(pthread_sigmask(SIG_BLOCK, NULL, &old) == 0 && !sigismember(&old, SIGSEGV));
        fault();
        EXPECT(faults == 2);
    }
}

static void *thread(void *first) {
    if (first != NULL) release(object(1000));
    int found = begin();
    rounds();
    if (!found) {
        stack_t none = {.ss_flags = SS_DISABLE};
        char *stack = low;
        signal_stack(&none, NULL);
        EXPECT(munmap(stack, STACK) == 0);
    }
    release(object(50));
    return NULL;
}

/* Of C's: its stack is known to the C library alone, and then to the kernel. */
static void *other_thread(void *unused) {
    release(object(100));
    char *memory = object(STACK);
    stack_t stack = {.ss_sp = memory, .ss_size = STACK}, now;
    (void)unused;
    EXPECT(sigaltstack(&stack, NULL) == 0);
    signal_stack(NULL, &now);
    EXPECT((char *)now.ss_sp == memory && now.ss_size == STACK);
    low = memory, size = STACK;
    unsigned long none = 0;
    mask(SIG_SETMASK, &none);
    rounds();
    stack = (stack_t){.ss_flags = SS_DISABLE};
    EXPECT(sigaltstack(&stack, &now) == 0 && (char *)now.ss_sp == memory);
    release(memory);
    return NULL;
}

static void set_handlers(void) {
    static const int numbers[] = {SIGHUP, SIGBUS, SIGSEGV, SIGURG, SIGPROF};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction action = {.sa_flags = SA_ONSTACK | SA_SIGINFO | SA_RESTART}, old;
        action.sa_sigaction = handler;
        sigfillset(&action.sa_mask);
        EXPECT(sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL);
        EXPECT(sigaction(numbers[i], &action, NULL) == 0 && sigaction(numbers[i], NULL, &old) == 0);
        EXPECT(old.sa_sigaction == handler && (old.sa_flags & ~0x04000000) == action.sa_flags);
    }
}

int main(void) {
    pthread_t threads[THREADS];
    release(object(100));
    begin();
    set_handlers();
    rounds();
    for (long i = 0; i < THREADS; i++) {
        /* The runtime makes threads with everything blocked. */
        sigset_t all, old;
        sigfillset(&all);
        EXPECT(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
        void *(*start)(void *) = i % 4 == 3 ? other_thread : thread;
        EXPECT(pthread_create(&threads[i], NULL, start, i % 2 == 0 ? NULL : threads) == 0);
        EXPECT(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        rounds();
        _exit(0);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    return 0;
}
