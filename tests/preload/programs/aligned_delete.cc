/* An object deleted with an alignment that it was not made with, and does not have. */
#include "program.h"
#include <new>

int main() {
    void *p = ::operator new(40);
    HIDE(p);
    ::operator delete(p, std::align_val_t(1 << 20));
    return 0;
}
