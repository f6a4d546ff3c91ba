/* Bug: strlen of objects without a NUL among their bytes, which ends at the first zero behind them. */
#include "program.h"

int main(void) {
    for (size_t size = 1; size <= 1000; size += size < 64 ? 1 : 37) {
        char *p = object(size);
        size_t length = strlen(p);
        HIDE(length);
        EXPECT(length > size && length <= size + 2);
        release(p);
    }
    return 0;
}
