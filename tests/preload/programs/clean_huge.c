/* Correct: sizes that no machine can serve fail with ENOMEM, and leave what was there as it was. */
#include "program.h"
#include <errno.h>

static void fails(void *p) {
    EXPECT(p == NULL && errno == ENOMEM);
    errno = 0;
}

int main(void) {
    static const size_t sizes[] = {SIZE_MAX,       SIZE_MAX - 1,    SIZE_MAX - 4096,      (size_t)PTRDIFF_MAX + 1,
                                   PTRDIFF_MAX,    PTRDIFF_MAX - 1, PTRDIFF_MAX - 100000, (size_t)1 << 62,
                                   (size_t)1 << 55};
    char *kept = object(100);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        HIDE(size);
        errno = 0;
        fails(malloc(size));
        fails(calloc(1, size));
        fails(calloc(size, 1));
        fails(realloc(NULL, size));
        fails(realloc(kept, size));
        fails(aligned_alloc(4096, size & ~(size_t)4095));
        void *p = kept;
        EXPECT(posix_memalign(&p, 64, size) == ENOMEM && p == kept);
    }
    size_t half = (size_t)1 << 32, most = SIZE_MAX;
    HIDE(half);
    HIDE(most);
    errno = 0;
    fails(calloc(half, half));
    fails(calloc(most / 2 + 2, 2));
    fails(calloc(most, most));
    fails(reallocarray(kept, half, half));
    fails(reallocarray(NULL, most / 2 + 2, 2));
    for (int i = 0; i < 100; i++) EXPECT(kept[i] == 'o');
    release(kept);
    return 0;
}
