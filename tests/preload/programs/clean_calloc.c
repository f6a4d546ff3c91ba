/* Correct: calloc's memory is zero, also where freed memory was full of other bytes. */
#include "program.h"

int main(void) {
    static const size_t sizes[] = {1, 7, 16, 24, 100, 1000, 4096, 5000, 70000, 1000000};
    for (int round = 0; round < 30; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t size = sizes[i];
            char *some[8];
            for (int k = 0; k < 8; k++) {
                some[k] = calloc(k % 2 ? 1 : size, k % 2 ? size : 1);
                HIDE(some[k]);
                EXPECT(some[k] != NULL);
                EXPECT(some[k][0] == 0 && memcmp(some[k], some[k] + 1, size - 1) == 0);
                memset(some[k], 0xff, size);
            }
            for (int k = 0; k < 8; k++) release(some[k]);
        }
    }
    return 0;
}
