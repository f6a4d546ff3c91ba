/* Bug: writes a NUL argv[2] bytes behind an object of argv[1] bytes, or with argv[3] so many bytes before it. */
#include "program.h"

int main(int argc, char **argv) {
    size_t size = number(argv, 1), distance = number(argv, 2);
    char *p = object(size);
    *(volatile char *)(argc > 3 ? p - distance : p + size + distance) = 0;
    release(p);
    return 0;
}
