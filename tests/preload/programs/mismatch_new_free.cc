// Bug: frees an object that new allocated.
#include "program.h"
#include <new>

int main() {
    void *p = ::operator new(40);
    release(p);
    return 0;
}
