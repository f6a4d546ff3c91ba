/* Bug: writes argv[2] bytes before an object of argv[1] bytes, or with a negative argv[2] behind the object in the slot before it.
 * Both live; the one that argv[3] says is freed first: `before` or `behind`. Prints how far apart they are. */
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
    int victim = 1;
    for (int i = 1; i < COUNT; i++)
        if ((size_t)(objects[i] - objects[i - 1]) < step) step = objects[i] - objects[i - 1], victim = i;
    long length = strtol(argv[2], NULL, 10);
    char *before = objects[victim - 1], *behind = objects[victim];
    char *from = length < 0 ? before + number(argv, 1) : behind - length;
    for (long i = 0; i < labs(length); i++) write_byte(from + i);
    printf("%zu\n", step);
    fflush(stdout);
    release(argv[3][2] == 'f' ? before : behind);
    release(argv[3][2] == 'f' ? behind : before);
    return 0;
}
