/* A thread's first allocation is the C library's own, under the thread's lock. */
#define _GNU_SOURCE
#include "program.h"
#include <pthread.h>

static void *ask(void *unused) {
    (void)unused;
    pthread_attr_t attributes;
    void *low;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) exit(1);
    if (pthread_attr_getstack(&attributes, &low, &size) != 0 || size == 0) exit(1);
    pthread_attr_destroy(&attributes);
    free(malloc(5000));
    return 0;
}

int main(void) {
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        if (pthread_create(&thread, 0, ask, 0) != 0 || pthread_join(thread, 0) != 0) return 1;
    }
    return 0;
}
