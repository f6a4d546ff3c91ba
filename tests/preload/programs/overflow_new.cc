// Bug: writes the element behind an array of argv[1] shorts.
#include "program.h"

int main(int, char **argv) {
    size_t n = number(argv, 1);
    short *p = new short[n];
    HIDE(p);
    *static_cast<volatile short *>(p + n) = 2;
    delete[] p;
    return 0;
}
