/* Bug: frees a string literal, which is read-only memory. */
#include "program.h"

int main(void) {
    release(object(64));
    const char *p = "a literal of the program";
    HIDE(p);
    free((char *)p);
    return 0;
}
