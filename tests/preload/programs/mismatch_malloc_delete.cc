// Bug: deletes an object that malloc allocated.
#include "program.h"
#include <new>

int main() {
    void *p = std::malloc(40);
    HIDE(p);
    ::operator delete(p);
    return 0;
}
