// Bug: two owners: two unique_ptr to one object.
#include "program.h"
#include <memory>

int main() {
    std::unique_ptr<long> first(new long(7));
    long *p = first.get();
    HIDE(p);
    std::unique_ptr<long> second(p);
    return 0;
}
