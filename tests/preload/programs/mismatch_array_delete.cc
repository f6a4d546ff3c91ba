// Bug: deletes with delete what new[] allocated.
#include "program.h"

int main() {
    long *p = new long[5];
    HIDE(p);
    delete p;
    return 0;
}
