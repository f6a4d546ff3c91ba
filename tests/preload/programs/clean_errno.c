/* Correct: free leaves errno as it was, and so does a successful malloc and realloc. */
#include "program.h"
#include <errno.h>

int main(void) {
    static const size_t sizes[] = {1, 24, 1000, 4096, 5000, 200000, 5000000, 200000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = malloc(sizes[i]);
        HIDE(p);
        EXPECT(p != NULL);
        p[0] = 1;
        errno = 4321;
        release(p);
        EXPECT(errno == 4321);
    }
    errno = 4321;
    release(NULL);
    EXPECT(errno == 4321);
    return 0;
}
