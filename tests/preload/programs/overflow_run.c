/* Bug: writes argv[2] bytes behind an object of argv[1] bytes, one after the other, then frees it. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1), count = number(argv, 2);
    char *p = object(size);
    for (size_t i = 0; i < count; i++) write_byte(p + size + i);
    release(p);
    return 0;
}
