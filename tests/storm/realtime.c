/* A real-time thread allocates in bursts on the one processor that it shares with others, which take the same locks. Arguments:
 * the number of bursts, and the milliseconds that none may exceed. The status is 77 where that is not permitted. */
#include "storm.h"
#include <sched.h>

#define THREADS 3
#define BURST 600

static atomic_int stop;

static void burst(void) {
    static const size_t some[] = {64, 64, 64, 900, 5000};
    void *own[BURST];
    for (int i = 0; i < BURST; i++)
        if (!(own[i] = malloc(some[i % (i % 20 ? 4 : 5)]))) fail("no memory\n");
    for (int i = 0; i < BURST; i++) free(own[i]);
}

static void *others(void *unused) {
    while (!stop) burst();
    return unused;
}

static double millis(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int count, char **arguments) {
    struct sched_param priority = {.sched_priority = 50}, none = {0};
    pthread_t threads[THREADS];
    cpu_set_t one;
    double worst = 0, most = atof(arguments[2]);
    int processor = sched_getcpu();
    CPU_ZERO(&one);
    CPU_SET(processor < 0 ? 0 : processor, &one);
    if (sched_setaffinity(0, sizeof one, &one)) _exit(77);
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, others, NULL);
    if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority)) _exit(77);
    for (long i = 0; i < atol(arguments[1]); i++) {
        /* The others get on meanwhile, each time to another place. */
        struct timespec pause = {0, 100000 + i * 7919 % 400000};
        nanosleep(&pause, NULL);
        double begin = millis();
        burst();
        double took = millis() - begin;
        worst = took > worst ? took : worst;
    }
    pthread_setschedparam(pthread_self(), SCHED_OTHER, &none);
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    say("the worst burst took %.2f ms\n", worst);
    if (worst > most) fail("which is more than %.0f ms\n", most);
    return 0;
}
