/* The C side of fencepost beyond the standard allocation functions.
 *
 * A program need not include this: preloading libfencepost.so is enough. */
#ifndef FENCEPOST_H
#define FENCEPOST_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Checks the canaries of every live object and that all freed slab memory is as the allocator left it; reports what is
 * wrong. The number of errors found, if on_error=continue lets the call return. A program that should run without the
 * library as well declares it weak and tests its address. */
int fencepost_check(void);

/* Lists what is allocated and what of it nothing points at any more, as leaks=1 does at exit; other threads stand still
 * meanwhile. The number of objects that are lost. */
int fencepost_check_leaks(void);

/* The live object that a pointer points into: 1, with its first byte and its size as it was asked for, each where the
 * argument is not null; 0 without one, and of memory that is not the heap's. An object of no bytes is found by its own
 * pointer. It holds as long as nobody frees the object. */
int fencepost_bounds(const void *pointer, void **start, size_t *size);

/* What an access to so many bytes from a pointer on would be, if the heap knows. Nothing is reported. */
enum {
    /* They are one live object's, or not the heap's, or none. */
    FENCEPOST_FINE = 0,
    FENCEPOST_OVERFLOW = 1,
    FENCEPOST_UNDERFLOW = 2,
    FENCEPOST_FREED = 3,
    /* No object is near. */
    FENCEPOST_WILD = 4,
    FENCEPOST_POISONED = 5
};
int fencepost_check_range(const void *pointer, size_t size);

/* For pools, whose free blocks the heap cannot tell from others: nobody may touch so many bytes from a pointer on, a part or
 * all of one live object, until fencepost_unpoison says otherwise or the object is freed or resized (realloc, whether or not
 * it succeeds). Each byte counts: nothing is rounded, and ranges may overlap, repeat or be taken back in parts. fencepost_check_range and
 * the functions of the C library that look at bounds know it; in mode=hunt whole pages are closed, so that any access stops
 * with a report. What the bytes held is lost: after fencepost_unpoison it is undefined, and zero where a page was closed.
 *
 * 1 if it was done, or the range has no bytes. 0 if nothing was done: the memory is not the heap's, or the object lies where
 * address space is limited, or another thread frees it or looks at it at this moment. A range that begins in freed memory,
 * or beside an object, or goes beyond its object is reported as a misuse, and 0. May be called in a signal handler. */
int fencepost_poison(const void *pointer, size_t size);
int fencepost_unpoison(const void *pointer, size_t size);

/* A program may define this; it is read at the first allocation, before the environment. */
extern const char *fencepost_options;

#ifdef __cplusplus
}
#endif

#endif
