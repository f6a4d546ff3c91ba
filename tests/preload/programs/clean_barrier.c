/* Correct: a program closes pages of its own live objects and handles the faults, as collectors and snapshots do: by
 * mprotect, by a mapping in their place, by a handler in another thread's time. */
#include "program.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

static volatile sig_atomic_t handled;

static void mend(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    handled++;
    char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)4095);
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0)
        mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Leaves the page accessible to the others, and what they had faulted on meanwhile. */
static char *shared;
static pthread_barrier_t start;

static void *touch(void *unused) {
    (void)unused;
    for (int i = 0; i < 200; i++) {
        if (pthread_barrier_wait(&start) == PTHREAD_BARRIER_SERIAL_THREAD) mprotect(shared, 4096, PROT_NONE);
        pthread_barrier_wait(&start);
        write_byte(shared + i);
    }
    return NULL;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = mend, .sa_flags = SA_SIGINFO};
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    static const size_t sizes[] = {4096, 8192, 16384, 65536, 1 << 20, 16 << 20};
    int expected = 0;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int how = 0; how < 4; how++)
            for (size_t at = 0; at < sizes[i]; at += sizes[i] / 2) {
                char *b = (char *)memalign(4096, sizes[i]);
                memset(b, 1, sizes[i]);
                char *page = b + (at & ~(size_t)4095);
                if (how == 0) mprotect(page, 4096, PROT_READ);
                if (how == 1) mprotect(page, 4096, PROT_NONE);
                if (how == 2) mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
                if (how == 3) munmap(page, 4096);
                write_byte(page + 5);
                expected++;
                EXPECT(handled == expected && page[5] == 'B');
                release(b);
            }
    shared = (char *)memalign(4096, 8192);
    EXPECT(pthread_barrier_init(&start, NULL, 4) == 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) EXPECT(pthread_create(&threads[i], NULL, touch, NULL) == 0);
    for (int i = 0; i < 4; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(handled >= expected + 200);
    release(shared);
    return 0;
}
