/* Correct: threads begin with the signals blocked that their maker blocks, SIGSEGV and SIGBUS among them, and one of them waits
 * for what is sent; with attributes they begin with the mask that these say. */
#include "program.h"
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static pthread_barrier_t sent;

static int blocks(int number) {
    sigset_t mask;
    EXPECT(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
    return sigismember(&mask, number);
}

static void *look(void *argument) {
    int *found = argument;
    found[0] = blocks(SIGSEGV), found[1] = blocks(SIGBUS), found[2] = blocks(SIGUSR1);
    return found;
}

static void *work(void *argument) {
    for (size_t i = 1; i < 1000; i++) free(object(i));
    pthread_barrier_wait(&sent);
    return argument;
}

static void *wait_for_one(void *argument) {
    sigset_t all;
    sigfillset(&all);
    EXPECT(sigwait(&all, argument) == 0);
    return argument;
}

static void expect(const pthread_attr_t *attributes, int segv, int bus, int user) {
    pthread_t thread;
    int found[3] = {-1, -1, -1};
    void *result;
    EXPECT(pthread_create(&thread, attributes, look, found) == 0);
    EXPECT(pthread_join(thread, &result) == 0 && result == found);
    EXPECT(found[0] == segv && found[1] == bus && found[2] == user);
    EXPECT(segv == blocks(SIGSEGV) || attributes != NULL);
}

int main(void) {
    sigset_t some, all;
    sigemptyset(&some);
    sigaddset(&some, SIGBUS);
    sigfillset(&all);
    expect(NULL, 0, 0, 0);
    EXPECT(pthread_sigmask(SIG_BLOCK, &some, NULL) == 0);
    expect(NULL, 0, 1, 0);
    EXPECT(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    expect(NULL, 1, 1, 1);
#ifdef __GLIBC__ /* Others have no attribute for the mask. */
    pthread_attr_t attributes;
    EXPECT(pthread_attr_init(&attributes) == 0 && pthread_attr_setsigmask_np(&attributes, &some) == 0);
    expect(&attributes, 0, 1, 0);
    EXPECT(pthread_attr_setstacksize(&attributes, 1) != 0);
#endif

    /* Everybody blocks everything: what is sent to the process waits for the one that takes it. */
    pthread_t workers[4], waiter;
    int number = 0;
    pthread_barrier_init(&sent, NULL, 5);
    for (int i = 0; i < 4; i++) EXPECT(pthread_create(&workers[i], NULL, work, NULL) == 0);
    EXPECT(kill(getpid(), SIGSEGV) == 0);
    pthread_barrier_wait(&sent);
    EXPECT(pthread_create(&waiter, NULL, wait_for_one, &number) == 0);
    EXPECT(pthread_join(waiter, NULL) == 0 && number == SIGSEGV);
    for (int i = 0; i < 4; i++) EXPECT(pthread_join(workers[i], NULL) == 0);

    EXPECT(pthread_sigmask(SIG_UNBLOCK, &all, NULL) == 0);
    expect(NULL, 0, 0, 0);
    return 0;
}
