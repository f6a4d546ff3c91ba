/* Bug: frees a local variable. */
#include "program.h"

int main(void) {
    release(object(64));
    char local[64] = "on the stack";
    char *p = local;
    release(p);
    return 0;
}
