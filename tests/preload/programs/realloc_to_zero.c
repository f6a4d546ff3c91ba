/* Bug: frees an object of argv[1] bytes that a resize to no bytes has freed, by `realloc`, or `reallocarray` if argv[2] says so. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    char *p = object(number(argv, 1)), *old = p;
    HIDE(old);
    void *q = strcmp(argv[2], "array") == 0 ? reallocarray(p, 0, 8) : realloc(p, 0);
    if (q != NULL) return 2;
    release(old);
    return 0;
}
