/* Bug: reads the byte argv[2] bytes before an object of argv[1] bytes. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1));
    (void)read_byte(p - number(argv, 2));
    release(p);
    return 0;
}
