/* Many threads at once, each with objects and a signal stack: what they cost of `vm.max_map_count`. Arguments: the number of
 * threads, and how many mappings in hundredths a thread may cost. The C library's stack of a thread is two. */
#include "storm.h"
#include <sys/mman.h>

static pthread_barrier_t all, looked;

static void *live(void *argument) {
    char *small = (char *)malloc(100), *name = strdup("thread");
    memset(small, 1, 100);
    pthread_barrier_wait(&all);
    pthread_barrier_wait(&looked);
    free(small);
    free(name);
    return argument;
}

static long mappings(void) {
    static char text[1 << 16];
    long lines = 0, got;
    int fd = open("/proc/self/maps", O_RDONLY);
    if (fd < 0) return 0;
    while ((got = read(fd, text, sizeof text)) > 0)
        for (long i = 0; i < got; i++) lines += text[i] == '\n';
    close(fd);
    return lines;
}

int main(int count, char **arguments) {
    long threads = atol(arguments[1]), most = atol(arguments[2]), before = mappings();
    pthread_t thread;
    pthread_attr_t attributes;
    if (count != 3) return 2;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || madvise(page, 4096, 102) != 0) {
        say("this kernel has no guard markers\n");
        return 0;
    }
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_barrier_init(&all, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&looked, NULL, (unsigned)threads + 1);
    for (long i = 0; i < threads; i++) {
        int error = pthread_create(&thread, &attributes, live, NULL);
        if (error) fail("thread %ld: %s\n", i, strerror(error));
    }
    pthread_barrier_wait(&all);
    long cost = (mappings() - before) * 100 / threads;
    say("%ld hundredths of a mapping for each of %ld threads\n", cost, threads);
    pthread_barrier_wait(&looked);
    return cost > most;
}
