/* Threads that start, allocate, leave some of it to another, and end. Arguments: the number of threads. */
#include "storm.h"

#define AT_ONCE 8
#define OWN 40

static pthread_key_t key;
static struct parcel left[AT_ONCE][OWN];

/* Allocates in every round of destructors that there is. */
static void late(void *value) {
    struct parcel *parcel = value;
    uint64_t state = (uintptr_t)value;
    drop(parcel);
    make(parcel, &state);
    if (parcel->byte % 2) pthread_setspecific(key, parcel);
}

static void *live(void *number) {
    uint64_t state = 99 + (uintptr_t)number * 2654435761u;
    struct parcel *parcels = left[(uintptr_t)number % AT_ONCE];
    for (int i = 0; i < OWN; i++) drop(&parcels[i]);
    for (int i = 0; i < 3 * OWN; i++) act(parcels, OWN, &state);
    if (!parcels[0].bytes) make(&parcels[0], &state);
    pthread_setspecific(key, &parcels[0]);
    return NULL;
}

int main(int count, char **arguments) {
    long threads = atol(arguments[1]), begun = 0;
    pthread_t ids[AT_ONCE];
    pthread_key_create(&key, late);
    for (long i = 0; i < threads; i += AT_ONCE) {
        for (long j = 0; j < AT_ONCE; j++)
            if (pthread_create(&ids[j], NULL, live, (void *)(i + j))) fail("no thread %ld\n", i + j);
        for (long j = 0; j < AT_ONCE; j++) pthread_join(ids[j], NULL);
        if (i <= threads / 10) begun = resident();
        if (i % 10000 < AT_ONCE) say("%ld threads, resident %ld KiB\n", i, resident());
    }
    long end = resident(), bound = atol(arguments[2]);
    say("%ld threads, resident %ld KiB after a tenth, %ld KiB at the end\n", threads, begun, end);
    if (end - begun > bound) fail("resident memory grew by %ld KiB, more than %ld\n", end - begun, bound);
    return 0;
}
