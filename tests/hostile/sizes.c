/* Prints which sizes beyond the machine's memory are granted, in every manner of asking. Nothing is touched. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysinfo.h>

static void ask(const char *name, size_t size) {
    void *volatile got[5] = {malloc(size), calloc(1, size), memalign(64, size), NULL, valloc(size)};
    void *placed = NULL;
    int error = posix_memalign(&placed, 1 << 16, size);
    got[3] = error ? NULL : placed;
    printf("%s:", name);
    for (int i = 0; i < 5; i++) {
        printf(" %d", got[i] != NULL);
        free(got[i]);
    }
    putchar('\n');
}

int main(void) {
    struct sysinfo info;
    if (sysinfo(&info) != 0) return 0;
    size_t all = (info.totalram + info.totalswap) * info.mem_unit;
    ask("a MiB less", all - (1 << 20));
    ask("all but a header", all - 32);
    ask("all but half a header", all - 16);
    ask("all", all);
    ask("a byte more", all + 1);
    ask("twice", all * 2);
    ask("1 TiB and all", (1ul << 40) + all);
    ask("64 TiB", 1ul << 46);
    ask("all addresses", 1ul << 47);
    ask("nonsense", 1ul << 62);
    /* A small object cannot grow beyond memory, and stays what it was. */
    char *small = malloc(100);
    small[99] = 'x';
    void *volatile grown = realloc(small, all + 4096);
    printf("grown: %d %c\n", grown != NULL, grown ? 'x' : small[99]);
    free(grown ? grown : small);
    return 0;
}
