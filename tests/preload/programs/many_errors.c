/* Bugs of many kinds, one after another, for a run that goes on: overflows at one place, uses after free, bad
 * frees and a bad realloc; then correct use of the memory that was touched. Argument: how it ends. */
#include "program.h"
#include <unistd.h>

#ifdef EXPORTED
__attribute__((noinline)) void run_over(char *p, int count) {
#else
__attribute__((noinline)) static void run_over(char *p, int count) {
#endif
    for (int i = 0; i < count; i++) write_byte(p + 4096 + i);
}

__attribute__((noinline)) static int use(const char *p) { return read_byte(p); }

static void correct_use(size_t size, int rounds) {
    for (int i = 0; i < rounds; i++) {
        char *p = (char *)calloc(1, size);
        EXPECT(p != NULL);
        for (size_t at = 0; at < size; at += 64) EXPECT(p[at] == 0);
        memset(p, 'x', size);
        release(p);
    }
}

int main(int argc, char **argv) {
    printf("begin\n");
    for (int i = 0; i < 3; i++) {
        char *p = object(4096);
        run_over(p, 5000);
        release(p);
    }
    char *freed = object(6000);
    release(freed);
    use(freed);
    use(freed + 5000);
    release(freed);
    for (volatile int i = 0; i < 2; i++) release(freed);
    release((void *)&argc);
    char *p = (char *)realloc(freed, 50);
    EXPECT(p != NULL);
    memset(p, 1, 50);
    release(p);
    char *large = object(1 << 20);
    release(large);
    write_byte(large + 5000);
    correct_use(5000, 60000);
    correct_use(1 << 20, 50);
    printf("end\n");
    if (argc > 1 && strcmp(argv[1], "_exit") == 0) {
        fflush(stdout);
        _exit(7);
    }
    return argc > 1 ? (int)number(argv, 1) : 0;
}
