/* Correct: limits its data to less than it has, and goes on with small objects as long as it frees them. */
#include "program.h"
#include <sys/resource.h>

int main(void) {
    char *kept[200];
    for (int i = 0; i < 200; i++) kept[i] = object(16 + i % 100 * 40);
    struct rlimit limit = {.rlim_cur = 1 << 16, .rlim_max = RLIM_INFINITY};
    EXPECT(setrlimit(RLIMIT_DATA, &limit) == 0);
    for (int i = 0; i < 200; i++) release(kept[i]);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 200; i++) {
            size_t size = 16 + i % 100 * 40;
            kept[i] = malloc(size);
            HIDE(kept[i]);
            EXPECT(kept[i] != NULL);
            memset(kept[i], round, size);
        }
        for (int i = 0; i < 200; i++) {
            EXPECT(kept[i][15] == round);
            release(kept[i]);
        }
    }
    /* A limit that is taken back is none. */
    limit.rlim_cur = RLIM_INFINITY;
    EXPECT(setrlimit(RLIMIT_DATA, &limit) == 0);
    release(object(1 << 20));
    return 0;
}
