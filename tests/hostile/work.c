/* Correct: allocates in every manner, takes from itself what its arguments say (the rules of confine.h), and
 * goes on with what it had and with new objects, in so many threads, three if the first argument is not
 * `threads=N`. Every byte is checked, and no allocation may fail: they take less than 24 MiB. */
#include "confine.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

enum { MANY = 1500, BIG = 6, MOST_THREADS = 9 };

static size_t size_of(size_t i) { return 1 + i * i * 37 % (i % 10 == 0 ? 30000 : 900); }

static void fill(char *p, size_t size, size_t i) {
    EXPECT(p != NULL);
    memset(p, 'a' + i % 26, size);
}

static void check(const char *p, size_t size, size_t i) {
    for (size_t at = 0; at < size; at += size < 5000 ? 1 : 97) EXPECT(p[at] == (char)('a' + i % 26));
    EXPECT(size == 0 || p[size - 1] == (char)('a' + i % 26));
}

static void make(char **objects) {
    for (size_t i = 0; i < MANY; i++) {
        if (i % 7 == 0) {
            objects[i] = calloc(1, size_of(i));
            EXPECT(objects[i] != NULL);
            for (size_t at = 0; at < size_of(i); at++) EXPECT(objects[i][at] == 0);
        } else if (i % 11 == 0) {
            EXPECT(posix_memalign((void **)&objects[i], 16 << i % 6, size_of(i)) == 0);
            EXPECT((uintptr_t)objects[i] % (16 << i % 6) == 0);
        } else objects[i] = malloc(size_of(i));
        fill(objects[i], size_of(i), i);
    }
}

static void change(char **objects) {
    for (size_t i = 0; i < MANY; i++) {
        check(objects[i], size_of(i), i);
        if (i % 3 == 0) {
            objects[i] = realloc(objects[i], size_of(i) * 2 + 100);
            EXPECT(objects[i] != NULL);
            check(objects[i], size_of(i), i);
            objects[i] = realloc(objects[i], size_of(i));
            EXPECT(objects[i] != NULL);
        } else if (i % 3 == 1) {
            free(objects[i]);
            objects[i] = malloc(size_of(i));
            fill(objects[i], size_of(i), i);
        }
    }
}

static void drop(char **objects) {
    for (size_t i = 0; i < MANY; i++) {
        check(objects[i], size_of(i), i);
        free(objects[i]);
    }
}

/* One large object that grows from 100 KB to 3.2 MB. */
static void grow(void) {
    size_t size = 100000;
    char *p = malloc(size);
    fill(p, size, 1);
    for (; size < 3000000; size *= 2) {
        p = realloc(p, size * 2);
        EXPECT(p != NULL);
        check(p, size, 1);
        fill(p, size * 2, 1);
    }
    free(p);
}

static void *thread(void *given) {
    static __thread char *objects[MANY];
    if (given) {
        free(given);
        make(objects);
        change(objects);
        drop(objects);
        grow();
    }
    return malloc(100);
}

int main(int argc, char **argv) {
    static char *objects[MANY], *big[BIG];
    int count = 3, first = 1;
    if (argc > 1 && strncmp(argv[1], "threads=", 8) == 0) count = atoi(argv[first++] + 8);
    EXPECT(count <= MOST_THREADS);
    make(objects);
    for (size_t i = 0; i < BIG; i++) fill(big[i] = malloc(1 << 20), 1 << 20, i);
    for (int i = first; i < argc; i++) confine(argv[i]);
    change(objects);
    grow();
    for (size_t i = 0; i < BIG; i++) {
        check(big[i], 1 << 20, i);
        free(big[i]);
    }
    pthread_t threads[MOST_THREADS];
    for (int i = 0; i < count; i++) EXPECT(pthread_create(&threads[i], NULL, thread, malloc(10)) == 0);
    for (int i = 0; i < count; i++) {
        void *result;
        EXPECT(pthread_join(threads[i], &result) == 0 && result != NULL);
        free(result);
    }
    change(objects);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        change(objects);
        drop(objects);
        _exit(0);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    drop(objects);
    malloc_trim(0);
    puts("done");
    return 0;
}
