/* Bug: frees a page of its own that mmap handed out. */
#include "program.h"
#include <sys/mman.h>

int main(void) {
    release(object(64));
    char *p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 2;
    release(p + 4096);
    return 0;
}
