/* Bug: writes through the pointer that it had before realloc moved an object of argv[1] bytes. */
#include "program.h"
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    char *stale = object(number(argv, 1)), *p = stale;
    HIDE(p);
    p = realloc(p, 3000000);
    if (p == NULL || p == stale) return 2;
    write_byte(stale);
    _exit(0);
}
