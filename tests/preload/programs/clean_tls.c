/* Correct: destructors of thread-specific data that free, allocate anew and are called again. */
#include "program.h"
#include <pthread.h>

static pthread_key_t first, second;

static void destroy(void *p) {
    static __thread int rounds;
    release(p);
    if (rounds++ < 2) pthread_setspecific(second, object(3000));
}

static void *user(void *argument) {
    pthread_setspecific(first, object((size_t)argument));
    pthread_setspecific(second, object(24));
    return NULL;
}

int main(void) {
    EXPECT(pthread_key_create(&first, free) == 0 && pthread_key_create(&second, destroy) == 0);
    for (size_t i = 1; i < 100; i++) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, user, (void *)(i * 50)) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
    }
    return 0;
}
