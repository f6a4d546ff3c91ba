/* Correct: locks all memory, now and in future, then allocates, frees and starts a thread. */
#include "program.h"
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

static void *use(void *p) {
    release(p);
    for (size_t size = 1; size < 200000; size = size * 2 + 1) {
        char *q = realloc(object(size), 2 * size);
        HIDE(q);
        EXPECT(q != NULL && q[size - 1] == 'o');
        q[2 * size - 1] = 1;
        release(q);
    }
    return NULL;
}

int main(void) {
    char *before = object(5000), *small = object(50);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        EXPECT(errno == EPERM || errno == ENOMEM || errno == EAGAIN);
        return NOT_PERMITTED;
    }
    use(before);
    use(small);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, use, object(9000)) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(munlockall() == 0);
    use(object(100));
    return 0;
}
