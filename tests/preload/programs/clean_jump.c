/* Correct: a handler on an alternate stack that lies above the thread's jumps out of it, in a program that was built to
 * have its jumps checked. */
#ifdef __OPTIMIZE__
#undef _FORTIFY_SOURCE
#define _FORTIFY_SOURCE 2
#endif
#include "program.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { HALF = 1 << 20 };
static sigjmp_buf back;
static char *memory;
static volatile int jumps;

static void jump(int number) {
    jumps++;
    siglongjmp(back, number);
}

static void *run(void *unused) {
    stack_t stack = {.ss_sp = memory + HALF, .ss_size = HALF};
    release(object(40));
    EXPECT(sigaltstack(&stack, NULL) == 0);
    struct sigaction action = {.sa_handler = jump, .sa_flags = SA_ONSTACK};
    EXPECT(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGSEGV, &action, NULL) == 0);
    for (volatile int i = 0; i < 10; i++) {
        char *none = NULL;
        HIDE(none);
        if (sigsetjmp(back, 1) == 0) raise(SIGUSR1);
        if (sigsetjmp(back, 1) == 0) write_byte(none);
        if (sigsetjmp(back, 1) == 0) siglongjmp(back, 1);
    }
    EXPECT(jumps == 20);
    return unused;
}

int main(void) {
    memory = mmap(NULL, 2 * HALF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    EXPECT(pthread_attr_setstack(&attributes, memory, HALF) == 0);
    EXPECT(pthread_create(&thread, &attributes, run, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return 0;
}
