/* Bug: frees an object of argv[1] bytes twice. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    release(p);
    release(p);
    return 0;
}
