/* Forks from a process with eight threads that allocate. Each child frees what its parent allocated, and
 * allocates. Arguments: the number of forks, and the microseconds that a thread sleeps after fifty steps. */
#include "storm.h"

#define THREADS 8
#define OWN 64

static atomic_int stop;
static int pause_micros;

static void *work(void *number) {
    uint64_t state = 88172645463325252u + (uintptr_t)number;
    struct parcel own[OWN] = {0};
    while (!stop) {
        for (int i = 0; i < 50; i++) act(own, OWN, &state);
        usleep(pause_micros);
    }
    for (int i = 0; i < OWN; i++) drop(&own[i]);
    return NULL;
}

static void child(struct parcel *inherited, uint64_t state) {
    alarm(CHILD_SECONDS);
    struct parcel own[OWN] = {0};
    for (int i = 0; i < OWN; i++) drop(&inherited[i]);
    for (int i = 0; i < OWN; i++) act(own, OWN, &state);
    for (int i = 0; i < OWN; i++) drop(&own[i]);
    _exit(0);
}

int main(int count, char **arguments) {
    long forks = atol(arguments[1]), begun = 0;
    pause_micros = atoi(arguments[2]);
    uint64_t state = 1234567;
    pthread_t threads[THREADS];
    struct parcel own[OWN] = {0};
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
    for (long i = 0; i < forks; i++) {
        for (int j = 0; j < OWN; j++) if (!own[j].bytes) make(&own[j], &state);
        pid_t pid = fork();
        if (pid == 0) child(own, state + i);
        expect(pid, "fork", i);
        act(own, OWN, &state);
        if (i == forks / 10) begun = resident();
        if (i % 10000 == 0) say("%ld forks\n", i);
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    say("%ld forks, resident %ld KiB after a tenth, %ld KiB at the end\n", forks, begun, resident());
    return 0;
}
