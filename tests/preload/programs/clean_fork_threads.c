/* Correct: forks while three threads allocate; each child frees and reallocates the parent's objects. */
#include "program.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 40, KEPT = 60 };
static atomic_int done;

static void *busy(void *argument) {
    char *held[16] = {NULL};
    for (size_t i = (size_t)argument; !atomic_load(&done); i++) {
        release(held[i % 16]);
        held[i % 16] = object(1 + i * 37 % 9000);
    }
    for (int i = 0; i < 16; i++) release(held[i]);
    return NULL;
}

static void *one_more(void *p) {
    release(p);
    return object(10);
}

static void child(char **kept) {
    alarm(50);
    for (int i = 0; i < KEPT; i++) {
        EXPECT(kept[i][0] == 'o');
        release(kept[i]);
        kept[i] = object(1 + i * 150);
    }
    pthread_t thread;
    void *result = NULL;
    EXPECT(pthread_create(&thread, NULL, one_more, kept[0]) == 0);
    EXPECT(pthread_join(thread, &result) == 0);
    release(result);
    exit(0);
}

int main(void) {
    pthread_t threads[3];
    char *kept[KEPT];
    for (int i = 0; i < KEPT; i++) kept[i] = object(1 + i * 100);
    for (size_t i = 0; i < 3; i++) EXPECT(pthread_create(&threads[i], NULL, busy, (void *)(i * 1000)) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0) child(kept);
        int status = 0;
        EXPECT(waitpid(pid, &status, 0) == pid && status == 0);
    }
    atomic_store(&done, 1);
    for (int i = 0; i < 3; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < KEPT; i++) release(kept[i]);
    return 0;
}
