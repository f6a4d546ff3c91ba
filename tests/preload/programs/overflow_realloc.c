/* Bug: shrinks an object from 200 to argv[1] bytes and writes the byte behind what it has left. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = realloc(object(200), size);
    HIDE(p);
    write_byte(p + size);
    release(p);
    return 0;
}
