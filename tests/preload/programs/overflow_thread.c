/* Bug: a second thread writes the byte behind an object of argv[1] bytes that the first one allocated. */
#include "program.h"
#include <pthread.h>

static size_t size;

static void *writer(void *p) {
    write_byte((char *)p + size);
    return NULL;
}

int main(int argc, char **argv) {
    (void)argc;
    size = number(argv, 1);
    char *p = object(size);
    pthread_t thread;
    if (pthread_create(&thread, NULL, writer, p) != 0) return 2;
    pthread_join(thread, NULL);
    release(p);
    return 0;
}
