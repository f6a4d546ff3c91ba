/* Bug: copies one byte more than the argv[1] bytes that the source has. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1), length = size + 1;
    char *source = object(size), *target = object(length);
    HIDE(length);
    memcpy(target, source, length);
    HIDE(target);
    release(source);
    release(target);
    return 0;
}
