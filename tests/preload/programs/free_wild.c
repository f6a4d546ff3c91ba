/* Bug: frees the number argv[1], which is no address of anything. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    release(object(64));
    release((void *)number(argv, 1));
    return 0;
}
