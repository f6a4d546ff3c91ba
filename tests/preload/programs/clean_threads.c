/* Correct: four threads allocate and hand each object to the next thread, which checks and frees it. */
#include "program.h"
#include <pthread.h>
#include <sched.h>

enum { THREADS = 4, BATCHES = 300, BATCH = 10 };

struct slot {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *objects[BATCH];
    int full;
};
static struct slot slots[THREADS];

static void *worker(void *argument) {
    size_t me = (size_t)argument;
    struct slot *out = &slots[me], *in = &slots[(me + THREADS - 1) % THREADS];
    for (size_t round = 0; round < BATCHES; round++) {
        char *made[BATCH];
        for (size_t i = 0; i < BATCH; i++) {
            size_t size = 1 + (round * 131 + i * 977 + me) % 6000;
            made[i] = object(size);
            made[i][0] = made[i][size - 1] = (char)me;
        }
        pthread_mutex_lock(&out->lock);
        while (out->full) pthread_cond_wait(&out->changed, &out->lock);
        memcpy(out->objects, made, sizeof made);
        out->full = 1;
        pthread_cond_broadcast(&out->changed);
        pthread_mutex_unlock(&out->lock);

        pthread_mutex_lock(&in->lock);
        while (!in->full) pthread_cond_wait(&in->changed, &in->lock);
        memcpy(made, in->objects, sizeof made);
        in->full = 0;
        pthread_cond_broadcast(&in->changed);
        pthread_mutex_unlock(&in->lock);
        for (size_t i = 0; i < BATCH; i++) {
            EXPECT(made[i][0] == (char)((me + THREADS - 1) % THREADS));
            release(made[i]);
        }
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        pthread_mutex_init(&slots[i].lock, NULL);
        pthread_cond_init(&slots[i].changed, NULL);
    }
    for (size_t i = 0; i < THREADS; i++) EXPECT(pthread_create(&threads[i], NULL, worker, (void *)i) == 0);
    for (size_t i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    return 0;
}
