// Bug: reallocates an object that new allocated.
#include "program.h"
#include <new>

int main() {
    void *p = ::operator new(40);
    HIDE(p);
    p = std::realloc(p, 400);
    release(p);
    return 0;
}
