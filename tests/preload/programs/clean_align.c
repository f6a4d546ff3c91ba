/* Correct: every alignment from 8 bytes to 2 MiB, by every function that takes one, and every byte used. */
#include "program.h"
#include <errno.h>
#include <malloc.h>

static void check(void *p, size_t align, size_t size) {
    HIDE(p);
    EXPECT(p != NULL && (uintptr_t)p % align == 0);
    memset(p, 'a', size);
}

int main(void) {
    static const size_t sizes[] = {1, 24, 100, 4096, 5000, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t align = 8; align <= (size_t)2 << 20; align *= 2) {
            size_t size = sizes[i], rounded = (size + align - 1) / align * align;
            void *a = NULL;
            EXPECT(posix_memalign(&a, align, size) == 0);
            void *b = aligned_alloc(align, rounded), *c = memalign(align, size);
            check(a, align, size);
            check(b, align, rounded);
            check(c, align, size);
            a = realloc(a, size + 5000);
            EXPECT(a != NULL && *(char *)a == 'a');
            release(b);
            release(a);
            release(c);
        }
        void *page = valloc(sizes[i]), *pages = pvalloc(sizes[i]);
        check(page, 4096, sizes[i]);
        check(pages, 4096, (sizes[i] + 4095) / 4096 * 4096);
        release(page);
        release(pages);
    }
    void *untouched = &untouched;
    EXPECT(posix_memalign(&untouched, 24, 100) == EINVAL && untouched == &untouched);
    EXPECT(posix_memalign(&untouched, 4, 100) == EINVAL && untouched == &untouched);
    for (size_t size = 1; size < 3000; size++) {
        void *p = malloc(size);
        check(p, size >= 16 ? 16 : 8, size);
        release(p);
    }
    return 0;
}
