/* Bug: frees a pointer to byte argv[2] of an object of argv[1] bytes. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    release(p + number(argv, 2));
    return 0;
}
