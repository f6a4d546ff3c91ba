/* Bug: frees an object of argv[1] bytes again after argv[2] others of its size were allocated and freed. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1), count = number(argv, 2);
    char *p = object(size);
    char **others = (char **)object(count * sizeof *others);
    for (size_t i = 0; i < count; i++) others[i] = object(size);
    release(p);
    for (size_t i = 0; i < count; i++) release(others[i]);
    release(p);
    return 0;
}
