/* Bug: writes byte argv[2] of a freed object of argv[1] bytes, and leaves without running exit handlers. */
#include "program.h"
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    release(p);
    write_byte(p + number(argv, 2));
    _exit(0);
}
