/* Bug: frees a global variable. */
#include "program.h"

static char global[64] = "in the data segment";

int main(void) {
    release(object(64));
    char *p = global;
    release(p);
    return 0;
}
