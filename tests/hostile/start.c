/* Correct: a program with a library (early.c, resolver.c) that allocates before it starts. */
#include "../preload/programs/program.h"

int early(void);
extern char *resolved;

int main(void) {
    EXPECT(early() == 1);
    EXPECT(resolved == NULL || resolved[20] == 0);
    release(resolved);
    puts("done");
    return 0;
}
