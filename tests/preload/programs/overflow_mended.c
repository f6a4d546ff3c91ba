/* Bug: writes past an object, in a program with a thread that opens every page soon after. */
#include "program.h"
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

static char *volatile closed;

static void *mend(void *unused) {
    (void)unused;
    struct timespec a_while = {0, 300000000}, a_moment = {0, 1000000};
    while (closed == NULL) nanosleep(&a_moment, NULL);
    nanosleep(&a_while, NULL);
    for (;;) {
        mprotect(closed, 4096, PROT_READ | PROT_WRITE);
        madvise(closed, 4096, 103 /* MADV_GUARD_REMOVE */);
        nanosleep(&a_moment, NULL);
    }
    return NULL;
}

int main(void) {
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, mend, NULL) == 0);
    char *p = object(4096);
    HIDE(p);
    closed = p + 4096;
    write_byte(p + 4096);
    printf("went on\n");
    return 0;
}
