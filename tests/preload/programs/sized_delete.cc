// Bug: states another size than was allocated in a sized delete.
#include "program.h"
#include <new>

int main() {
    void *p = ::operator new(40);
    HIDE(p);
    ::operator delete(p, std::size_t{24});
    return 0;
}
