/* Correct: a signal handler, which the kernel lets neither read nor write what a key seals, calls every function that looks at
 * a table: allocates and frees in all ways, asks for sizes and bounds, checks and poisons. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *(*new_aligned)(size_t, size_t);
static void (*delete_aligned)(void *, size_t), (*delete_sized)(void *, size_t, size_t);
static void (*free_with_size)(void *, size_t), (*free_with_both)(void *, size_t, size_t);
static int (*bounds)(const void *, void **, size_t *), (*range)(const void *, size_t);
static int (*poison)(const void *, size_t), (*unpoison)(const void *, size_t), (*check)(void);
static volatile int wrong;

#define EXPECT(condition) do { if (!(condition) && !wrong) wrong = __LINE__; } while (0)

static void one(size_t size) {
    char *p = malloc(size);
    EXPECT(p && malloc_usable_size(p) == size);
    memset(p, 1, size);
    p = realloc(p, size + 100);
    EXPECT(p && p[size - 1] == 1);
    free_with_size(p, size + 100);
    p = calloc(1, size);
    EXPECT(p && !p[0] && !p[size - 1]);
    void *start = NULL;
    size_t known = 0;
    EXPECT(bounds(p + size / 2, &start, &known) == 1 && start == p && known == size);
    EXPECT(range(p, size) == 0 && range(p, size + 1) == 1);
    EXPECT(poison(p, size) == 1 && range(p, 1) == 5 && unpoison(p, size) == 1);
    free(p);
    EXPECT(posix_memalign((void **)&p, 64, size) == 0 && (uintptr_t)p % 64 == 0);
    free_with_both(p, 64, size);
    p = new_aligned(size, 64);
    EXPECT(p != NULL);
    delete_aligned(p, 64);
    p = new_aligned(size, 128);
    EXPECT(p != NULL);
    delete_sized(p, size, 128);
    EXPECT(mallinfo2().uordblks > 0);
}

static void on_signal(int number) {
    size_t sizes[] = {8, 100, 1000, 4096, 20000, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) one(sizes[i]);
    EXPECT(check() == 0);
    malloc_trim(0);
}

static void *find(const char *name) {
    void *symbol = dlsym(RTLD_DEFAULT, name);
    if (!symbol) puts(name), exit(2);
    return symbol;
}

int main(void) {
    new_aligned = find("_ZnwmSt11align_val_t"), delete_aligned = find("_ZdlPvSt11align_val_t");
    delete_sized = find("_ZdlPvmSt11align_val_t");
    free_with_size = find("free_sized"), free_with_both = find("free_aligned_sized");
    bounds = find("fencepost_bounds"), range = find("fencepost_check_range"), check = find("fencepost_check");
    poison = find("fencepost_poison"), unpoison = find("fencepost_unpoison");
    void *kept = malloc(1000);
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 3; i++) raise(SIGUSR1);
    free(kept);
    if (wrong) printf("line %d\n", wrong);
    return wrong != 0;
}
