// Bug: writes element size() of a vector whose capacity is its size.
#include "program.h"
#include <vector>

int main(int, char **argv) {
    std::vector<int> v(number(argv, 1), 7);
    int *p = v.data();
    HIDE(p);
    *static_cast<volatile int *>(p + v.size()) = 2;
    return 0;
}
