/* Correct: takes from itself what its arguments say (the rules of confine.h), and then starts threads that allocate and free
 * more than a thread keeps, so that all go to what they share. Every byte is checked. */
#include "confine.h"
#include <pthread.h>

enum { THREADS = 8, MANY = 300, ROUNDS = 60 };

static void *thread(void *given) {
    static __thread char *objects[MANY];
    char own = (char)(uintptr_t)given;
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = round % 2 ? 3700 : 40;
        for (int i = 0; i < MANY; i++) {
            objects[i] = malloc(size);
            EXPECT(objects[i] != NULL);
            memset(objects[i], own, size);
        }
        for (int i = 0; i < MANY; i++) {
            for (size_t at = 0; at < size; at++) EXPECT(objects[i][at] == own);
            free(objects[i]);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) confine(argv[i]);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL, thread, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    puts("done");
    return 0;
}
