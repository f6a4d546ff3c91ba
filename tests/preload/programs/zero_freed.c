/* Bug: frees an object of no bytes, and then frees it again or reads it (argv[1]). */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = malloc(0);
    HIDE(p);
    release(p);
    for (int i = 0; i < 500; i++) release(malloc(0));
    if (!strcmp(argv[1], "again")) release(p);
    else (void)read_byte(p);
    return 0;
}
