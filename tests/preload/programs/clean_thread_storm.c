/* Correct: 2,000 threads, 20 at a time; each frees its predecessor's object and leaves one behind. */
#include "program.h"
#include <pthread.h>

enum { AT_ONCE = 20, ROUNDS = 100 };

static void *replace(void *p) {
    release(p);
    for (size_t size = 1; size < 3000; size *= 3) release(object(size));
    return object(48);
}

int main(void) {
    void *left[AT_ONCE] = {NULL};
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) EXPECT(pthread_create(&threads[i], NULL, replace, left[i]) == 0);
        for (int i = 0; i < AT_ONCE; i++) EXPECT(pthread_join(threads[i], &left[i]) == 0);
    }
    for (int i = 0; i < AT_ONCE; i++) release(left[i]);
    return 0;
}
