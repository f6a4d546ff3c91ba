/* Bug: one post too many: a loop over n ints that runs to i <= n. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t n = number(argv, 1);
    int *posts = calloc(n, sizeof *posts);
    HIDE(posts);
    for (size_t i = 0; i <= n; i++) *(volatile int *)&posts[i] = 2 * (int)i + 2;
    release(posts);
    return 0;
}
