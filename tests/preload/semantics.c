/* What the allocation functions do at the edges: one line a row, `name: what was seen`. The same binary runs
 * with and without the library, and the lines are compared. Addresses and sizes that an allocator may choose
 * are not printed; what the manual promises about them is. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef __GLIBC__
/* What musl does not declare. */
struct mallinfo { int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
struct mallinfo2 { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
void *pvalloc(size_t);
int mallopt(int, int), malloc_info(int, FILE *), malloc_trim(size_t);
struct mallinfo mallinfo(void);
struct mallinfo2 mallinfo2(void);
enum { M_MXFAST = 1, M_GRAIN = 3, M_TRIM_THRESHOLD = -1, M_TOP_PAD = -2, M_MMAP_THRESHOLD = -3, M_MMAP_MAX = -4,
       M_CHECK_ACTION = -5, M_PERTURB = -6, M_ARENA_TEST = -7, M_ARENA_MAX = -8 };
#endif

/* Hidden from the compiler, which knows what these functions do. */
#define CALL(function) ((__typeof__(&function))hidden((void *)(function)))
static void *hidden(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}
static size_t some(size_t n) {
    __asm__ volatile("" : "+r"(n));
    return n;
}

enum { UNTOUCHED = 12345 };

static const char *error_name(int error) {
    switch (error) {
    case 0: return "0";
    case UNTOUCHED: return "untouched";
    case ENOMEM: return "ENOMEM";
    case EINVAL: return "EINVAL";
    default: return "other";
    }
}

static int aligned(void *p, size_t align) { return ((uintptr_t)p & (align - 1)) == 0; }

static int all_bytes(const unsigned char *p, size_t size, unsigned char value) {
    for (size_t i = 0; i < size; i++)
        if (p[i] != value) return 0;
    return 1;
}

/* Every byte of the object can be written, up to its end. */
static void use(void *p, size_t size) {
    if (p != NULL) memset(p, 0x5a, size);
}

static void show(const char *name, size_t argument, void *p, size_t size, size_t align) {
    int error = errno;
    if (p == NULL) {
        printf("%s(%#zx): null, errno %s\n", name, argument, error_name(error));
        return;
    }
    use(p, size);
    printf("%s(%#zx): pointer, aligned %d, errno %s\n", name, argument, aligned(p, align), error_name(error));
}

static void sizes(void) {
    static const size_t requests[] = {0, 1, 7, 8, 15, 16, 17, 24, 25, 1000, 4095, 4096, 4097, 65536, 1 << 20, 10 << 20,
        PTRDIFF_MAX - 4096, PTRDIFF_MAX - 1, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX - 15, SIZE_MAX};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        size_t size = requests[i];
        errno = UNTOUCHED;
        void *p = CALL(malloc)(size);
        show("malloc", size, p, size, 16);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(calloc)(1, size);
        int zero = p == NULL || all_bytes(p, size, 0);
        show("calloc 1", size, p, size, 16);
        printf("calloc 1 (%#zx): zero %d\n", size, zero);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(realloc)(NULL, size);
        show("realloc NULL", size, p, size, 16);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(reallocarray)(NULL, 1, size);
        show("reallocarray NULL 1", size, p, size, 16);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(memalign)(256, size);
        show("memalign 256", size, p, size, 256);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(aligned_alloc)(64, size);
        show("aligned_alloc 64", size, p, size, 64);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(valloc)(size);
        show("valloc", size, p, size, getpagesize());
        CALL(free)(p);

        /* pvalloc's object is whole pages. */
        errno = UNTOUCHED;
        p = CALL(pvalloc)(size);
        size_t pages = p == NULL ? 0 : (size + getpagesize() - 1) / getpagesize() * getpagesize();
        show("pvalloc", size, p, pages, getpagesize());
        CALL(free)(p);
    }
}

static void overflow(void) {
    static const size_t pairs[][2] = {{SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX, SIZE_MAX}, {(size_t)1 << 32, (size_t)1 << 32},
        {((size_t)1 << 32) + 1, (size_t)1 << 32}, {0, SIZE_MAX}, {SIZE_MAX, 0}, {(size_t)1 << 62, 2}, {3, SIZE_MAX / 3 + 1}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t a = pairs[i][0], b = pairs[i][1];
        printf("row %zu: ", i);
        errno = UNTOUCHED;
        void *p = CALL(calloc)(a, b);
        show("calloc", a, p, a * b, 16);
        CALL(free)(p);
        unsigned char *old = CALL(malloc)(40);
        memset(old, 7, 40);
        errno = UNTOUCHED;
        p = CALL(reallocarray)(old, a, b);
        int error = errno;
        printf("row %zu: reallocarray: %s, errno %s, block intact %d\n", i, p == NULL ? "null" : "pointer", error_name(error),
            a != 0 && b != 0 ? all_bytes(old, 40, 7) : -1);
        /* With a product of 0 it was freed. */
        if (a != 0 && b != 0) CALL(free)(p == NULL ? old : p);
    }
}

static void reallocs(void) {
    static const size_t requests[] = {1, 24, 100, 5000, 300000};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        size_t size = requests[i];
        unsigned char *p = CALL(malloc)(size);
        errno = UNTOUCHED;
        void *q = CALL(realloc)(p, 0);
        printf("realloc to 0 (%zu): %s, errno %s\n", size, q == NULL ? "null" : "pointer", error_name(errno));
        CALL(free)(q);

        p = CALL(malloc)(size);
        memset(p, 9, size);
        static const size_t huge[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX, PTRDIFF_MAX - 100};
        for (size_t j = 0; j < 4; j++) {
            errno = UNTOUCHED;
            q = CALL(realloc)(p, huge[j]);
            printf("realloc %zu to %#zx: %s, errno %s, block intact %d\n", size, huge[j], q == NULL ? "null" : "pointer",
                error_name(errno), all_bytes(p, size, 9));
        }
        static const size_t next[] = {1, 17, 90, 4096, 4097, 70000, 2000000, 5000, 33};
        size_t had = size;
        int kept = 1;
        for (size_t j = 0; j < sizeof next / sizeof *next; j++) {
            errno = UNTOUCHED;
            p = CALL(realloc)(p, next[j]);
            size_t common = had < next[j] ? had : next[j];
            kept &= p != NULL && all_bytes(p, common, 9) && aligned(p, 16) && errno == UNTOUCHED;
            memset(p, 9, next[j]);
            had = next[j];
        }
        printf("realloc chain from %zu: contents, alignment and errno kept %d\n", size, kept);
        CALL(free)(p);
    }
    /* An aligned object is resized as any. */
    unsigned char *p = CALL(memalign)(4096, 100);
    memset(p, 3, 100);
    p = CALL(realloc)(p, 6000);
    printf("realloc of an aligned object: contents %d\n", p != NULL && all_bytes(p, 100, 3));
    CALL(free)(p);
}

static void alignments(void) {
    static const size_t aligns[] = {0, 1, 2, 3, 4, 7, 8, 12, 16, 24, 32, 48, 64, 100, 1000, 1024, 3000, 4096, 5000, 8192, 65536,
        1 << 20, (1 << 20) + 1, 2 << 20, 64 << 20, 1 << 30, (size_t)1 << 62, ((size_t)1 << 62) + 1, (size_t)1 << 63,
        ((size_t)1 << 63) + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        size_t align = aligns[i];
        /* What the function rounds to is at least 16 where it does not refuse. */
        size_t promised = 16;
        while (promised < align && promised <= SIZE_MAX / 4) promised *= 2;
        int power = align != 0 && (align & (align - 1)) == 0;

        errno = UNTOUCHED;
        void *p = CALL(memalign)(align, 100);
        show("memalign to", align, p, 100, promised);
        CALL(free)(p);

        errno = UNTOUCHED;
        p = CALL(aligned_alloc)(align, 100);
        show("aligned_alloc to", align, p, 100, power ? promised : 1);
        CALL(free)(p);

        void *before = (void *)&before;
        p = before;
        errno = UNTOUCHED;
        int result = CALL(posix_memalign)(&p, align, 100);
        int error = errno;
        printf("posix_memalign to %#zx: %s, errno %s, result %s, aligned %d\n", align, error_name(result), error_name(error),
            p == before ? "untouched" : "set", result == 0 ? aligned(p, promised) : -1);
        if (result == 0) {
            use(p, 100);
            CALL(free)(p);
        }
    }
    static const size_t huge[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 4095};
    for (size_t i = 0; i < 4; i++) {
        void *before = (void *)&before, *p = before;
        errno = UNTOUCHED;
        int result = CALL(posix_memalign)(&p, 64, huge[i]);
        printf("posix_memalign of %#zx: %s, errno %s, result %s\n", huge[i], error_name(result), error_name(errno),
            p == before ? "untouched" : "set");
    }
    void *p = NULL;
    int result = CALL(posix_memalign)(&p, 64, 0);
    printf("posix_memalign of 0: %s, %s\n", error_name(result), p == NULL ? "null" : "pointer");
    CALL(free)(p);
}

static void zero_size(void) {
    void *p[6] = {CALL(malloc)(0), CALL(malloc)(0), CALL(calloc)(0, 5), CALL(calloc)(5, 0), CALL(memalign)(64, 0), CALL(valloc)(0)};
    int unique = 1;
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < i; j++) unique &= p[i] != NULL && p[i] != p[j];
    printf("objects of size 0: unique pointers %d\n", unique);
    for (int i = 0; i < 6; i++) CALL(free)(p[i]);
    p[0] = CALL(realloc)(CALL(malloc)(0), 10);
    printf("realloc of an object of size 0: %s\n", p[0] == NULL ? "null" : "pointer");
    use(p[0], 10);
    CALL(free)(p[0]);
}

static void frees(void) {
    static const size_t requests[] = {1, 100, 5000, 70000, 3 << 20};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        void *p = CALL(malloc)(requests[i]);
        use(p, requests[i]);
        errno = UNTOUCHED;
        CALL(free)(p);
        printf("free of %zu: errno %s\n", requests[i], error_name(errno));
    }
    errno = UNTOUCHED;
    CALL(free)(NULL);
    printf("free(NULL): errno %s\n", error_name(errno));
}

static void usable(void) {
    printf("malloc_usable_size(NULL): %zu\n", CALL(malloc_usable_size)(NULL));
    int enough = 1, exact = 1, usable = 1;
    for (size_t size = 0; size < 300000; size = size * 3 / 2 + 1) {
        void *p = CALL(malloc)(size);
        size_t got = CALL(malloc_usable_size)(p);
        enough &= got >= size;
        exact &= got == size;
        use(p, got);
        p = CALL(realloc)(p, size + 10);
        usable &= p != NULL && all_bytes(p, size, 0x5a);
        CALL(free)(p);
    }
    printf("malloc_usable_size: at least what was asked for %d, all of it usable %d\n", enough, usable);
    printf("malloc_usable_size: exactly what was asked for %d\n", exact);
}

static void tuning(void) {
    static const int rows[][2] = {{M_MXFAST, 0}, {M_MXFAST, 160}, {M_MXFAST, 161}, {M_MXFAST, -1}, {M_TRIM_THRESHOLD, 1 << 20},
        {M_TOP_PAD, 0}, {M_MMAP_THRESHOLD, 1 << 20}, {M_MMAP_THRESHOLD, 32 << 20}, {M_MMAP_THRESHOLD, (32 << 20) + 1},
        {M_MMAP_MAX, 65536}, {M_CHECK_ACTION, 3}, {M_PERTURB, 0}, {M_ARENA_TEST, 2}, {M_ARENA_MAX, 2}, {4711, 1}, {M_GRAIN, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("mallopt(%d, %d): %d\n", rows[i][0], rows[i][1], CALL(mallopt)(rows[i][0], rows[i][1]));
    enum { OBJECTS = 2000, SIZE = 900 };
    static void *objects[OBJECTS];
    struct mallinfo2 before = CALL(mallinfo2)();
    for (int i = 0; i < OBJECTS; i++) use(objects[i] = CALL(malloc)(SIZE), SIZE);
    /* Larger than every threshold that glibc adapts to. */
    void *large = CALL(malloc)(64 << 20);
    struct mallinfo2 full = CALL(mallinfo2)();
    struct mallinfo old = CALL(mallinfo)();
    size_t all = full.uordblks + full.hblkhd, none = before.uordblks + before.hblkhd;
    printf("mallinfo2: grows with what is allocated %d\n", all - none >= (size_t)OBJECTS * SIZE + (64 << 20));
    printf("mallinfo2: small objects are in use %d\n", full.uordblks - before.uordblks >= (size_t)OBJECTS * SIZE);
    printf("mallinfo: the same figures %d\n", (size_t)old.hblks == full.hblks && (size_t)old.arena == full.arena);
    printf("mallinfo2: a large object is mapped %d\n", full.hblks > before.hblks && full.hblkhd - before.hblkhd >= 64 << 20);
    printf("mallinfo2: arena is the sum %d\n", full.arena == full.uordblks + full.fordblks);
    for (int i = 0; i < OBJECTS; i++) CALL(free)(objects[i]);
    CALL(free)(large);
    struct mallinfo2 after = CALL(mallinfo2)();
    printf("mallinfo2: what is freed is not in use %d\n", after.uordblks < before.uordblks + 100000);
    printf("mallinfo2: falls with what is freed %d\n", after.uordblks + after.hblkhd - none < 100000);
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    errno = UNTOUCHED;
    int good = CALL(malloc_info)(0, stream), bad = CALL(malloc_info)(1, stream);
    fclose(stream);
    printf("malloc_info: %d %s, a document %d\n", good, error_name(bad),
        strncmp(text, "<malloc version=\"1\">", 20) == 0 && strcmp(text + length - 10, "</malloc>\n") == 0);
    CALL(free)(text);
    int trimmed = CALL(malloc_trim)(0);
    printf("malloc_trim: 0 or 1 %d\n", trimmed == 0 || trimmed == 1);
    fflush(stdout);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    sizes();
    overflow();
    reallocs();
    alignments();
    zero_size();
    frees();
    usable();
    tuning();
    return 0;
}
