/* Bug: memset of argv[2] bytes more than the argv[1] bytes that the object has. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1), length = size + number(argv, 2);
    char *p = object(size);
    HIDE(length);
    memset(p, 'B', length);
    release(p);
    return 0;
}
