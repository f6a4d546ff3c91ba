/* What is not as expected says so by a line. */
#include <stdio.h>

static int wrong;

static void expect(const char *what, size_t size, long got, long expected) {
    if (got == expected) return;
    printf("%s of %zu: %ld and not %ld\n", what, size, got, expected);
    wrong = 1;
}
