/* Correct: a quarter of a million live objects of no bytes, each with an address of its own. They take no mappings and
 * little memory, can be resized, freed by another thread, and are there in a child. */
#include "program.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 250000 };

static char *objects[COUNT];

static long lines(const char *path) {
    FILE *file = fopen(path, "r");
    long count = 0;
    for (int c; file != NULL && (c = getc(file)) != EOF;) count += c == '\n';
    if (file != NULL) fclose(file);
    return count;
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

static void *free_every_third(void *unused) {
    for (int i = 0; i < COUNT; i += 3) release(objects[i]);
    return unused;
}

int main(void) {
    long before = lines("/proc/self/maps");
    for (int i = 0; i < COUNT; i++) {
        objects[i] = i % 2 ? malloc(0) : calloc(i % 7, 0);
        HIDE(objects[i]);
        EXPECT(objects[i] != NULL && (uintptr_t)objects[i] % 16 == 0);
    }
    EXPECT(lines("/proc/self/maps") - before < 100);
    qsort(objects, COUNT, sizeof *objects, by_address);
    for (int i = 1; i < COUNT; i++) EXPECT(objects[i] - objects[i - 1] >= 16);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        for (int i = 0; i < COUNT; i += 1000) release(objects[i]), release(malloc(0));
        _exit(0);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, free_every_third, NULL) == 0 && pthread_join(thread, NULL) == 0);
    for (int i = 1; i < COUNT; i += 3) {
        if (i % 100 == 1) {
            size_t size = (size_t)i % 9000 + 1;
            objects[i] = realloc(objects[i], size);
            EXPECT(objects[i] != NULL);
            memset(objects[i], 1, size);
        }
        release(objects[i]);
    }
    for (int i = 2; i < COUNT; i += 3) release(objects[i]);
    return 0;
}
