/* A library that allocates in a constructor, and with RESOLVER in an IFUNC's resolver, which runs while
 * libraries are still being relocated. */
#include "../preload/programs/program.h"

static char *made;
char *resolved;

__attribute__((constructor)) static void begin(void) { made = object(100); }
__attribute__((destructor)) static void end(void) { release(made); }

#ifdef RESOLVER
static int one(void) { return 1; }
static void *choose(void) {
    char *p = malloc(100);
    memset(p, 1, 100);
    p = realloc(p, 300);
    free(p);
    resolved = calloc(3, 7);
    return one;
}
int early(void) __attribute__((ifunc("choose")));
#else
int early(void) { return 1; }
#endif
