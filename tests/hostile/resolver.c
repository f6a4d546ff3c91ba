/* early.c with its resolver. */
#define RESOLVER
#include "early.c"
