/* Bug: writes behind an object. The function that does has no symbol once the program is stripped, and the one before it has. */
#include <stdlib.h>

int exported(int value) { return value + 1; }

static void hidden(char *object) { object[16] = 1; }

int main(void) {
    char *object = malloc(16);
    hidden(object);
    return exported(0) - 1;
}
