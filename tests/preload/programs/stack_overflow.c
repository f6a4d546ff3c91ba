/* Bug: a recursion without end, in the first thread or in another. It is none of the heap's. */
#include "program.h"
#include <pthread.h>

static int deep(int n) {
    volatile char room[2000];
    room[n % 2000] = (char)n;
    return deep(n + 1) + room[n % 1000];
}

static void *run(void *unused) {
    release(object(64));
    return (void *)(intptr_t)deep(unused != NULL);
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (strcmp(argv[argc - 1], "thread") == 0) {
        pthread_create(&thread, NULL, run, NULL);
        pthread_join(thread, NULL);
    }
    return run(NULL) != NULL;
}
