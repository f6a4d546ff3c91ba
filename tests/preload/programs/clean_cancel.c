/* Correct: cancelled threads, whose clean-up handlers free what they hold. */
#include "program.h"
#include <pthread.h>
#include <unistd.h>

static void *holder(void *argument) {
    (void)argument;
    char *p = object(100);
    pthread_cleanup_push(free, p);
    for (;;) pause();
    pthread_cleanup_pop(1);
    return NULL;
}

int main(void) {
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        void *result = NULL;
        EXPECT(pthread_create(&thread, NULL, holder, NULL) == 0);
        EXPECT(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
        EXPECT(result == PTHREAD_CANCELED);
    }
    return 0;
}
