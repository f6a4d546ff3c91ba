/* Bug: writes the byte behind one of 500 live objects of argv[1] bytes, and exits without freeing any. */
#include "program.h"

enum { COUNT = 500 };
static char *objects[COUNT];

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    for (int i = 0; i < COUNT; i++) objects[i] = object(size);
    write_byte(objects[250] + size);
    return 0;
}
