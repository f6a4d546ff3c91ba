/* Bug: writes the byte behind an object of argv[2] bytes at an alignment of argv[1]. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 2);
    void *p = NULL;
    if (posix_memalign(&p, number(argv, 1), size) != 0) return 2;
    HIDE(p);
    write_byte((char *)p + size);
    release(p);
    return 0;
}
