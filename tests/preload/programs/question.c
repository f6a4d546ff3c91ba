/* Bug: asks for the size of a pointer that is no live object's start (argv[1]); the object has argv[2] bytes. */
#include "program.h"
#include <malloc.h>

int main(int argc, char **argv) {
    (void)argc;
    char local[64], *p = object(number(argv, 2));
    if (!strcmp(argv[1], "freed")) release(p);
    else if (!strcmp(argv[1], "late")) {
        release(p);
        for (int i = 0; i < 20; i++) release(object(100));
    } else if (!strcmp(argv[1], "interior")) p += 16;
    else if (!strcmp(argv[1], "stack")) p = local;
    else if (!strcmp(argv[1], "wild")) p = (char *)0x1234568;
    HIDE(p);
    if (malloc_usable_size(p) != 0) return 3;
    return 0;
}
