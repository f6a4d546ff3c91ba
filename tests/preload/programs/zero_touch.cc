// Bug: touches an object of no bytes that the function argv[1] gave, in the way argv[2], argv[4] bytes behind or before
// (argv[3]) where it is; a thousand others live around it, and small objects as well.
#include "program.h"
#include <malloc.h>
#include <new>

static void *nothing(const char *function) {
    void *p = nullptr;
    if (!strcmp(function, "malloc")) p = malloc(0);
    else if (!strcmp(function, "calloc")) p = calloc(0, 8);
    else if (!strcmp(function, "realloc")) p = realloc(nullptr, 0);
    else if (!strcmp(function, "reallocarray")) p = reallocarray(nullptr, 5, 0);
    else if (!strcmp(function, "memalign")) p = memalign(64, 0);
    else if (!strcmp(function, "memalign_large")) p = memalign(16384, 0);
    else if (!strcmp(function, "posix_memalign")) p = posix_memalign(&p, 1024, 0) ? nullptr : p;
    else if (!strcmp(function, "valloc")) p = valloc(0);
    else if (!strcmp(function, "new")) p = ::operator new(0);
    else if (!strcmp(function, "new_array")) p = new char[0];
    HIDE(p);
    if (p == nullptr) _Exit(2);
    return p;
}

int main(int, char **argv) {
    char *chosen = nullptr;
    for (int i = 0; i < 1000; i++) {
        object(1 + i % 40);
        char *p = static_cast<char *>(nothing(argv[1]));
        if (i == 600) chosen = p;
        if (i % 3 == 0) release(nothing("malloc"));
    }
    size_t distance = number(argv, 4);
    char *at = strcmp(argv[3], "before") ? chosen + distance : chosen - distance;
    if (!strcmp(argv[2], "read")) (void)read_byte(at);
    else write_byte(at);
    return 0;
}
