/* Not the heap's: a program closes a page of its own object, handles no fault, and touches it. Argument: the object's
 * size. */
#include "program.h"
#include <malloc.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = (char *)memalign(4096, size);
    memset(p, 1, size);
    mprotect(p, 4096, PROT_NONE);
    write_byte(p + 7);
    return 0;
}
