/* Bug: a thread that blocks all signals uses a freed object. Argument: its size. */
#include "program.h"
#include <pthread.h>
#include <signal.h>

static size_t size;

static void *run(void *unused) {
    sigset_t all, now;
    sigfillset(&all);
    EXPECT(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
    EXPECT(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGSEGV) && sigismember(&now, SIGINT));
    EXPECT(!sigismember(&now, SIGRTMIN - 1));
    char *p = object(size);
    release(p);
    HIDE(p);
    return (void *)(intptr_t)read_byte(p);
}

int main(int argc, char **argv) {
    (void)argc;
    size = number(argv, 1);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, run, NULL) == 0);
    pthread_join(thread, NULL);
    return 0;
}
