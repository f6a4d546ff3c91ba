/* Bug: writes through a null pointer. It is none of the heap's, so the program ends as it would without
 * a hardened heap. */
#include "program.h"

int main(void) {
    release(object(64));
    char *p = NULL;
    HIDE(p);
    write_byte(p);
    return 0;
}
