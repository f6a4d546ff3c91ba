/* A library with a function of the same name as the program's; with HELPED that of a library it needs, and with
 * ALLOCATES it deals in objects. */
#include "../preload/programs/program.h"

#ifdef HELPED
const char *helper_ask(void);
const char *ask(void) { return helper_ask(); }
#else
const char *whose(void) { return "library"; }
#ifdef HELPER
const char *helper_ask(void) { return whose(); }
#else
const char *ask(void) { return whose(); }
#endif
#endif

#ifdef ALLOCATES
static char *kept;
__attribute__((constructor)) static void begin(void) { release(realloc(strdup("kept"), 100)), kept = object(50); }
__attribute__((destructor)) static void end(void) { release(kept); }
void take(char *p) { release(realloc(p, 5000)); }
char *give(size_t size) { return object(size); }
#endif
