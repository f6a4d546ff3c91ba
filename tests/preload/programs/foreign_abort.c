/* Bug: an assertion of the program's own fails. It ends as it would without a hardened heap. */
#include "program.h"
#undef NDEBUG
#include <assert.h>

int main(void) {
    char *p = object(64);
    HIDE(p);
    assert(p == NULL);
    return 0;
}
