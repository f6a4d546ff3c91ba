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
    FENCEPOST_WILD = 4
};
int fencepost_check_range(const void *pointer, size_t size);

/* A program may define this; it is read at the first allocation, before the environment. */
extern const char *fencepost_options;

#ifdef __cplusplus
}
#endif

#endif
