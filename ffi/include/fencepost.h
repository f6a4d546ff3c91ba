/* The C side of fencepost beyond the standard allocation functions.
 *
 * A program need not include this: preloading libfencepost.so is enough. */
#ifndef FENCEPOST_H
#define FENCEPOST_H

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

/* A program may define this; it is read at the first allocation, before the environment. */
extern const char *fencepost_options;

#ifdef __cplusplus
}
#endif

#endif
