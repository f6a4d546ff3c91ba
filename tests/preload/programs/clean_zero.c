/* Correct: malloc(0), realloc to 0, free(NULL), realloc(NULL, n). */
#include "program.h"

int main(void) {
    char *a = malloc(0), *b = malloc(0), *c = calloc(0, 8), *d = calloc(8, 0);
    HIDE(a); HIDE(b); HIDE(c); HIDE(d);
    EXPECT(a != NULL && b != NULL && a != b && c != NULL && d != NULL && c != d);
    a = realloc(a, 50);
    EXPECT(a != NULL);
    memset(a, 1, 50);
    free(NULL);
    release(a), release(b), release(c), release(d);

    /* glibc frees and returns NULL; ISO C leaves the result open, so another pointer is to be freed. */
    for (size_t size = 1; size < 100000; size *= 3) {
        char *p = object(size);
        p = realloc(p, 0);
        HIDE(p);
        free(p);
    }
    char *p = realloc(NULL, 10);
    HIDE(p);
    EXPECT(p != NULL);
    memset(p, 2, 10);
    release(p);
    p = reallocarray(NULL, 3, 5);
    HIDE(p);
    EXPECT(p != NULL);
    memset(p, 3, 15);
    release(p);
    return 0;
}
