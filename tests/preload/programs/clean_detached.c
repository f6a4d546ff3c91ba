/* Correct: the process exits while detached threads go on allocating and freeing. */
#include "program.h"
#include <pthread.h>
#include <unistd.h>

static void *busy(void *argument) {
    (void)argument;
    for (size_t i = 0; i < SIZE_MAX; i++) release(object(1 + i % 5000));
    return NULL;
}

int main(void) {
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, busy, NULL) == 0);
        EXPECT(pthread_detach(thread) == 0);
    }
    usleep(50000);
    return 0;
}
