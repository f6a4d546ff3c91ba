/* Bug: writes byte argv[2] of a freed object of argv[1] bytes, then allocates and frees that size 200,000
 * times, and leaves without running exit handlers: what finds the write must find it at reuse. */
#include "program.h"
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = object(size);
    release(p);
    write_byte(p + number(argv, 2));
    for (int i = 0; i < 200000; i++) release(object(size));
    _exit(0);
}
