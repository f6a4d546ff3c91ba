// Bug: reallocates an object that new[] allocated, of argv[1] bytes, to argv[2] bytes, for which it has room.
#include "program.h"
#include <new>

int main(int, char **argv) {
    void *p = ::operator new[](number(argv, 1));
    HIDE(p);
    p = std::realloc(p, number(argv, 2));
    HIDE(p);
    return p == nullptr;
}
