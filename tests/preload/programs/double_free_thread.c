/* Bug: another thread frees an object of argv[1] bytes that the first one has freed. */
#include "program.h"
#include <pthread.h>

static void *freer(void *p) {
    release(p);
    return NULL;
}

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    release(p);
    pthread_t thread;
    if (pthread_create(&thread, NULL, freer, p) != 0) return 2;
    pthread_join(thread, NULL);
    return 0;
}
