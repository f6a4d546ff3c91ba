/* Bug: strlen of argv[1] bytes without a NUL among them. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    size_t length = strlen(p);
    HIDE(length);
    release(p);
    return 0;
}
