/* Bug: an object with the alignment argv[1] is resized again and again, to the sizes from argv[5] on; then the byte argv[3]
 * bytes behind or before it (argv[2]) is written, and it is freed. argv[4] is its first size. */
#include "program.h"
#include <malloc.h>

int main(int argc, char **argv) {
    size_t align = number(argv, 1), size = number(argv, 4), distance = number(argv, 3);
    char *p = align == 0 ? malloc(size) : memalign(align, size);
    HIDE(p);
    if (p == NULL) return 2;
    memset(p, 'a', size);
    for (int i = 5; i < argc; i++) {
        size_t next = number(argv, i), kept = next < size ? next : size;
        p = realloc(p, next);
        HIDE(p);
        if (p == NULL) return 2;
        for (size_t at = 0; at < kept; at++) EXPECT(p[at] == 'a');
        memset(p, 'a', next);
        size = next;
    }
    write_byte(strcmp(argv[2], "before") ? p + size + distance : p - distance);
    release(p);
    return 0;
}
