/* Correct: sixty objects grow and shrink in turn, some of them aligned, and keep their contents. */
#include "program.h"
#include <malloc.h>

enum { COUNT = 60, STEPS = 40 };

static unsigned seed = 1;

static size_t below(size_t bound) {
    seed = seed * 1103515245 + 12345;
    return (seed >> 8) % bound;
}

static unsigned char expected(int i, size_t at) { return (unsigned char)(at * 7 + (size_t)i); }

int main(void) {
    unsigned char *objects[COUNT];
    size_t sizes[COUNT];
    for (int i = 0; i < COUNT; i++) {
        sizes[i] = 1;
        objects[i] = i % 5 == 0 ? memalign((size_t)16 << i % 11, 1) : malloc(1);
        HIDE(objects[i]);
        EXPECT(objects[i] != NULL);
        objects[i][0] = expected(i, 0);
    }
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < COUNT; i++) {
            size_t old = sizes[i], size = step % 8 == 7 ? old / 3 + 1 : old + below(old / 2 + 600) + 1;
            if (size > 900000) size = below(900000) + 1;
            unsigned char *p = realloc(objects[i], size);
            HIDE(p);
            EXPECT(p != NULL);
            for (size_t at = 0; at < old && at < size; at++) EXPECT(p[at] == expected(i, at));
            for (size_t at = old; at < size; at++) p[at] = expected(i, at);
            objects[i] = p;
            sizes[i] = size;
        }
    }
    for (int i = 0; i < COUNT; i++) release(objects[i]);
    return 0;
}
