/* Correct: realloc keeps contents while it grows and shrinks, in small, large and random steps. */
#include "program.h"

static uint64_t state = 88172645463325252;

static uint64_t next_number(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static unsigned char *resize(unsigned char *p, size_t old_size, size_t size) {
    p = realloc(p, size);
    HIDE(p);
    EXPECT(p != NULL);
    for (size_t i = 0; i < old_size && i < size; i++) EXPECT(p[i] == (unsigned char)(i * 31));
    for (size_t i = old_size; i < size; i++) p[i] = (unsigned char)(i * 31);
    return p;
}

int main(void) {
    unsigned char *p = NULL;
    size_t size = 0;
    for (size_t next = 1; next < 4000000; next += next < 2000 ? 7 : next / 3) {
        p = resize(p, size, next);
        size = next;
    }
    while (size > 3) {
        p = resize(p, size, size / 2);
        size /= 2;
    }
    for (int i = 0; i < 300; i++) {
        size_t next = 1 + next_number() % ((size_t)1 << (next_number() % 17));
        p = resize(p, size, next);
        size = next;
    }
    release(p);
    return 0;
}
