/* How many bytes of stack calls of the allocator take at most: each is made on a stack that is painted before. */
#define _GNU_SOURCE
#include "program.h"
#include <malloc.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { BYTES = 128 << 10, MANY = 300 };
static ucontext_t home, there;
static unsigned char *low;
static void (*task)(void);
static void *objects[MANY];
static size_t size;

static void body(void) {
    task();
    swapcontext(&there, &home);
}

static size_t used(void (*what)(void)) {
    size_t at = 0;
    task = what;
    memset(low, 0xa5, BYTES);
    EXPECT(getcontext(&there) == 0);
    there.uc_stack.ss_sp = low;
    there.uc_stack.ss_size = BYTES;
    makecontext(&there, body, 0);
    EXPECT(swapcontext(&home, &there) == 0);
    while (low[at] == 0xa5) at++;
    return BYTES - at;
}

static void nothing(void) {}
static void by_malloc(void) { for (int i = 0; i < MANY; i++) objects[i] = malloc(size); }
static void by_calloc(void) { for (int i = 0; i < MANY; i++) objects[i] = calloc(1, size); }
static void by_memalign(void) { for (int i = 0; i < MANY; i++) objects[i] = memalign(64, size); }
static void by_realloc(void) { for (int i = 0; i < MANY; i++) objects[i] = realloc(objects[i], size * 2 + 1); }
static void by_free(void) { for (int i = 0; i < MANY; i++) free(objects[i]); }

int main(void) {
    static const size_t sizes[] = {24, 1000, 4096, 1 << 20};
    static const struct { const char *name; void (*call)(void); } calls[] = {
        {"malloc", by_malloc}, {"realloc", by_realloc}, {"free", by_free},    {"calloc", by_calloc},
        {"free", by_free},     {"memalign", by_memalign}, {"free", by_free},
    };
    low = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(low != MAP_FAILED);
    size_t none = used(nothing);
    for (size_t row = 0; row < sizeof sizes / sizeof *sizes; row++) {
        size = sizes[row];
        for (size_t column = 0; column < sizeof calls / sizeof *calls; column++) {
            printf("%s %zu: %zu\n", calls[column].name, size, used(calls[column].call) - none);
        }
    }
    return 0;
}
