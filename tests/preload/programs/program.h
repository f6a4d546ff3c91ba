/* What the programs share. */
#ifndef PROGRAM_H
#define PROGRAM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef __GLIBC__
/* What musl does not declare. */
void *pvalloc(size_t);
#endif

/* Makes the compiler forget what it knows of the pointer p, so that it neither sees nor uses a bug. */
#define HIDE(p) __asm__ volatile("" : "+r"(p) : : "memory")

/* Ends the program with the line of the first expectation that does not hold. */
#define EXPECT(what)                                                          \
    do {                                                                      \
        if (!(what)) {                                                        \
            printf("line %d: %s\n", __LINE__, #what);                         \
            fflush(stdout);                                                   \
            _Exit(1);                                                         \
        }                                                                     \
    } while (0)

/* A status that says: this system does not permit what the program is about. */
#define NOT_PERMITTED 77

/* The number in argument i. */
static inline size_t number(char **argv, int i) { return strtoull(argv[i], NULL, 0); }

/* One byte read, or written, by one instruction at exactly this place. What is written is even: the bytes
 * of canaries are odd, so that a test cannot happen to write what is there. */
static inline unsigned char read_byte(const void *p) { return *(const volatile unsigned char *)p; }
static inline void write_byte(void *p) { *(volatile unsigned char *)p = 'B'; }

/* malloc, opaque to the compiler, with the contents set. */
static inline char *object(size_t size) {
    char *p = (char *)malloc(size);
    HIDE(p);
    if (p == NULL) _Exit(2);
    memset(p, 'o', size);
    return p;
}

/* free, opaque to the compiler: it keeps the freed pointer for valid. */
static inline void release(void *p) {
    HIDE(p);
    free(p);
}

#endif
