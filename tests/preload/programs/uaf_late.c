/* Bug: reads an object of argv[1] bytes that was freed 1,000 allocations and frees ago. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = object(size);
    release(p);
    for (int i = 0; i < 1000; i++) release(object(size));
    (void)read_byte(p);
    return 0;
}
