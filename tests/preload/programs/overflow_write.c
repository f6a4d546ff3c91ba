/* Bug: writes the byte behind an object of argv[1] bytes, then frees the object. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = object(size);
    write_byte(p + size);
    release(p);
    return 0;
}
