/* Gives advice up when it has started, as the rules of confine.h in its arguments say, and then has the bug that its first argument
 * names:
 *
 *   behind   uses objects of before and after, and writes one byte behind an object of 4096 bytes
 *   fresh    the same with new objects alone, in chunks that were not opened before
 *   stale    reads an object of 4096 bytes that was there before and is freed now
 *   shrunk   reads what an object of 8192 bytes of before gave up when it became one of 4096
 *   deep     calls itself without end in a new thread */
#include "confine.h"
#include <pthread.h>

enum { MANY = 300, MORE = 3000 };

static int deep(int n) {
    volatile char room[2000];
    room[n % 2000] = (char)n;
    return deep(n + 1) + room[n % 1000];
}

static void *thread(void *unused) {
    release(object(64));
    return (void *)(intptr_t)deep(unused != NULL);
}

int main(int argc, char **argv) {
    char *objects[MANY], *last = object(8192), *old = object(4096);
    const char *bug = argv[1];
    for (size_t i = 0; i < MANY; i++) objects[i] = object(i * 41 + 1);
    for (int i = 2; i < argc; i++) confine(argv[i]);
    if (strcmp(bug, "stale") == 0) {
        release(old);
        (void)read_byte(old);
    } else if (strcmp(bug, "shrunk") == 0) {
        last = realloc(last, 4096);
        HIDE(last);
        (void)read_byte(last + 4096);
    } else if (strcmp(bug, "deep") == 0) {
        pthread_t other;
        EXPECT(pthread_create(&other, NULL, thread, NULL) == 0 && pthread_join(other, NULL) == 0);
    } else if (strcmp(bug, "fresh") == 0) {
        size_t moves = 0;
        for (size_t i = 0; i < MORE; i++) {
            char *next = object(4096);
            moves += ((uintptr_t)next ^ (uintptr_t)last) >> 21 != 0;
            last = next;
        }
        /* They share their chunks, and do not have one each. */
        EXPECT(moves < MORE / 10);
        write_byte(last + 4096);
    } else {
        for (size_t i = 0; i < MANY; i += 2) free(objects[i]);
        for (size_t i = 0; i < MANY; i += 2) memset(objects[i] = malloc(4096 + i), 'n', 4096 + i);
        for (size_t i = 0; i < MANY; i++) free(objects[i]);
        last = object(4096);
        write_byte(last + 4096);
    }
    puts("went on");
    return 0;
}
