/* Bug: writes argv[2] bytes behind one of 500 live objects of argv[1] bytes, then frees them all. */
#include "program.h"

enum { COUNT = 500, VICTIM = 250 };

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1), count = number(argv, 2);
    char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) objects[i] = object(size);
    for (size_t i = 0; i < count; i++) write_byte(objects[VICTIM] + size + i);
    for (int i = 0; i < COUNT; i++) release(objects[(i + VICTIM) % COUNT]);
    return 0;
}
