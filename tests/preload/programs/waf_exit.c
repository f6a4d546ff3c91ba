/* Bug: writes byte argv[2] of a freed object of argv[1] bytes, then exits. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    release(p);
    write_byte(p + number(argv, 2));
    return 0;
}
