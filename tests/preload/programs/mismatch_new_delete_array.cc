// Bug: deletes with delete[] what new allocated.
#include "program.h"

int main() {
    long *p = new long(7);
    HIDE(p);
    delete[] p;
    return 0;
}
