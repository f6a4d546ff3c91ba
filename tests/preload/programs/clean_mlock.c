/* Correct: locks and unlocks the pages of objects, as programs do that keep secrets. */
#include "program.h"
#include <errno.h>
#include <sys/mman.h>

int main(void) {
    static const size_t sizes[] = {32, 4096, 8192, 20000};
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char *secret = object(sizes[i]);
            if (mlock(secret, sizes[i]) != 0) {
                EXPECT(errno == EPERM || errno == EAGAIN);
                return NOT_PERMITTED;
            }
            memset(secret, 0, sizes[i]);
            /* Every second one is freed while it is locked. */
            if (round % 2) EXPECT(munlock(secret, sizes[i]) == 0);
            release(secret);
        }
    }
    return 0;
}
