/* Threads that are cancelled at any moment, inside the allocator most of the time. (The C library's own allocator may
 * hang then.) Arguments: how many. */
#include "storm.h"

#define OWN 16

static void *work(void *number) {
    uint64_t state = 3 + (uintptr_t)number;
    struct parcel own[OWN] = {0};
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    for (;;) act(own, OWN, &state);
}

int main(int count, char **arguments) {
    int threads = atoi(arguments[1]);
    uint64_t state = 5;
    struct parcel own[OWN] = {0};
    for (uintptr_t i = 0; i < threads; i += 2) {
        pthread_t ids[2];
        for (uintptr_t j = 0; j < 2; j++) pthread_create(&ids[j], NULL, work, (void *)(i + j));
        usleep(200 + i % 7 * 100);
        for (int j = 0; j < 2; j++) pthread_cancel(ids[j]);
        for (int j = 0; j < 2; j++) pthread_join(ids[j], NULL);
        for (int j = 0; j < 50; j++) act(own, OWN, &state);
    }
    for (int i = 0; i < OWN; i++) drop(&own[i]);
    say("%d threads\n", threads);
    return 0;
}
