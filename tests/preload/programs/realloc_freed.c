/* Bug: reallocates a freed object of argv[1] bytes. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = object(size);
    release(p);
    p = realloc(p, 2 * size);
    release(p);
    return 0;
}
