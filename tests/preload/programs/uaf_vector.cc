// Bug: keeps a reference to an element of a vector of 10 ints while the vector grows.
#include "program.h"
#include <vector>

int main() {
    std::vector<int> v(10, 7);
    int *first = &v.front();
    HIDE(first);
    v.push_back(8);
    (void)*static_cast<volatile int *>(first);
    return 0;
}
