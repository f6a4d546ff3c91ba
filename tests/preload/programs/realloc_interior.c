/* Bug: reallocates a pointer to byte argv[2] of an object of argv[1] bytes. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = object(size) + number(argv, 2);
    HIDE(p);
    p = realloc(p, 2 * size);
    release(p);
    return 0;
}
