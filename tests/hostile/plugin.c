/* A plugin: what it frees and what it allocates. */
#include "../preload/programs/program.h"

void take(char *p) { release(realloc(p, 5000)); }
char *give(size_t size) { return object(size); }
