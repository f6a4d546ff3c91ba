// Bug: deletes a derived object through a base without a virtual destructor: the compiler states the
// size of the base.
#include "program.h"

struct Base {
    long a = 1;
};
struct Derived : Base {
    long b[4] = {2, 3, 4, 5};
};

int main() {
    Base *p = new Derived;
    HIDE(p);
    delete p;
    return 0;
}
