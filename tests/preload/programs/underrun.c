/* Bug: writes the byte argv[2] bytes before an object of argv[1] bytes. The slot before it is argv[3]: `live`, `freed`, or
 * `unused` if there is such a one. Then frees all. */
#include "program.h"

enum { COUNT = 60 };

static int by_address(const void *one, const void *other) {
    uintptr_t a = *(const uintptr_t *)one, b = *(const uintptr_t *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    (void)argc;
    static char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) objects[i] = object(number(argv, 1));
    qsort(objects, COUNT, sizeof *objects, by_address);
    size_t step = SIZE_MAX;
    for (int i = 1; i < COUNT; i++)
        if ((size_t)(objects[i] - objects[i - 1]) < step) step = objects[i] - objects[i - 1];
    int victim = argv[3][0] == 'u' ? 0 : 1;
    for (int i = 1; i < COUNT; i++)
        if (((size_t)(objects[i] - objects[i - 1]) == step) == (argv[3][0] != 'u')) victim = i;
    if (argv[3][0] == 'f') {
        release(objects[victim - 1]);
        objects[victim - 1] = NULL;
    }
    write_byte(objects[victim] - number(argv, 2));
    release(objects[victim]);
    objects[victim] = NULL;
    for (int i = 0; i < COUNT; i++) release(objects[i]);
    return 0;
}
