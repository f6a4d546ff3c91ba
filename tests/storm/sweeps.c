/* Checks of the whole heap, one after another, by a thread of low priority beside others that allocate, resize in place,
 * and free what another allocated. Arguments: seconds. */
#include "storm.h"
#include <sys/resource.h>

#define THREADS 4
#define OWN 32
#define SHARED 64

int fencepost_check(void) __attribute__((weak));

static atomic_int stop;
static struct parcel *_Atomic shared[SHARED];
static atomic_long actions;

/* Around the sizes of slots, pages and large objects. */
static size_t any_size(uint64_t *state) {
    static const size_t some[] = {24, 500, 3000, 4096, 5000, 12000, 70000, 400000};
    uint32_t kind = draw(state) % 64;
    size_t size = some[kind < 2 ? 7 : kind < 6 ? 6 : kind % 6];
    return size - draw(state) % (size / 4);
}

static struct parcel *fresh(uint64_t *state) {
    struct parcel *parcel = malloc(sizeof *parcel);
    if (!parcel) fail("no memory\n");
    parcel->size = any_size(state);
    parcel->byte = 1 + draw(state) % 255;
    parcel->bytes = malloc(parcel->size);
    if (!parcel->bytes) fail("no memory for %zu bytes\n", parcel->size);
    memset(parcel->bytes, parcel->byte, parcel->size);
    return parcel;
}

static void discard(struct parcel *parcel) {
    if (!parcel) return;
    drop(parcel);
    free(parcel);
}

/* A little more or less, which often has room where the object is. */
static void stretch(struct parcel *parcel, uint64_t *state) {
    size_t size = parcel->size + draw(state) % 64 - (parcel->size > 64 ? draw(state) % 64 : 0);
    if (draw(state) % 8 == 0) size = any_size(state);
    check(parcel);
    parcel->bytes = realloc(parcel->bytes, size);
    if (!parcel->bytes) fail("no memory for %zu bytes\n", size);
    memset(parcel->bytes, parcel->byte, size);
    parcel->size = size;
}

static void *churn(void *number) {
    uint64_t state = 31337 + (uintptr_t)number;
    struct parcel *own[OWN] = {0};
    while (!stop) {
        struct parcel **place = &own[draw(&state) % OWN];
        switch (*place ? draw(&state) % 3 : 3) {
        case 0: stretch(*place, &state); break;
        case 1: discard(*place), *place = NULL; break;
        /* Another thread frees it. */
        case 2: discard(atomic_exchange(&shared[draw(&state) % SHARED], *place)), *place = NULL; break;
        default: *place = fresh(&state);
        }
        actions++;
    }
    for (int i = 0; i < OWN; i++) discard(own[i]);
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t threads[THREADS];
    time_t end = time(NULL) + atol(arguments[1]);
    long checks = 0;
    if (!fencepost_check) fail("there is no library\n");
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, churn, (void *)i);
    setpriority(PRIO_PROCESS, syscall(SYS_gettid), 19);
    for (; time(NULL) < end; checks++)
        if (fencepost_check()) fail("check %ld finds an error\n", checks);
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < SHARED; i++) discard(shared[i]);
    if (fencepost_check()) fail("the last check finds an error\n");
    say("%ld checks, %ld actions\n", checks, actions);
    return 0;
}
