/* Correct: after the rules of confine.h in its arguments frees 48 MiB of small objects and of large ones, and has to get them back
 * as memory of the system's. Objects that are new afterwards hold no byte of the old ones. */
#include "confine.h"
#include <malloc.h>

enum { SMALL = 200, LARGE = 20000, BYTES = 24 << 20, SLACK = 8 << 20 };

/* Bytes of memory that the process has. */
static size_t resident(void) {
    char text[128];
    FILE *file = fopen("/proc/self/statm", "r");
    EXPECT(file != NULL && fgets(text, sizeof text, file));
    fclose(file);
    return strtoull(strchr(text, ' '), NULL, 10) * (size_t)getpagesize();
}

/* Objects of a size, all of them there, then none. */
static void pass(char **objects, size_t size) {
    for (size_t i = 0; i < BYTES / size; i++) objects[i] = object(size);
    for (size_t i = 0; i < BYTES / size; i++) release(objects[i]);
}

int main(int argc, char **argv) {
    static char *objects[BYTES / SMALL];
    /* Behind it lie closed pages. That they cannot be opened shows that advice has no effect any more. */
    release(object(200000));
    for (int i = 1; i < argc; i++) confine(argv[i]);
    release(object(200000));
    memset(objects, 0, sizeof objects);
    size_t before = resident();
    static const size_t sizes[] = {SMALL, LARGE};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pass(objects, sizes[i]);
        malloc_trim(0);
        size_t after = resident();
        if (after > before + SLACK) printf("%zu bytes: %zu KiB stay\n", sizes[i], (after - before) >> 10);
        EXPECT(after <= before + SLACK);
    }
    for (size_t i = 0; i < BYTES / SMALL; i++) {
        char *p = objects[i] = calloc(1, SMALL);
        EXPECT(p != NULL && p[0] == 0 && memcmp(p, p + 1, SMALL - 1) == 0);
    }
    puts("done");
    return 0;
}
