/* Bug: writes the byte argv[2] bytes before one of 500 live objects of argv[1] bytes, and exits without
 * freeing any. */
#include "program.h"

enum { COUNT = 500 };
static char *objects[COUNT];

int main(int argc, char **argv) {
    (void)argc;
    for (int i = 0; i < COUNT; i++) objects[i] = object(number(argv, 1));
    write_byte(objects[250] - number(argv, 2));
    return 0;
}
