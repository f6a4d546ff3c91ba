/* Objects that are made and freed while an exception passes. */
#include "../preload/programs/program.h"
#include <new>

#define FRAME extern "C" __attribute__((noinline, noclone, noipa))
#define AFTER __asm__ volatile("" : : : "memory")

static char *kept;
static volatile char sink;

FRAME char use_leaf(volatile char *p) { return *p; }
FRAME void drop(char *p) { delete[] p; AFTER; }

struct Guard {
    char *kept;
    __attribute__((noinline)) Guard(size_t size) : kept(new char[size]) {}
    __attribute__((noinline)) ~Guard() { drop(kept); AFTER; }
};

FRAME void thrower(void) { throw 1; }
FRAME void guarded(void) {
    Guard guard(40);
    ::kept = guard.kept;
    thrower();
    AFTER;
}
FRAME void catcher(void) {
    try {
        guarded();
    } catch (int) {
        sink = use_leaf(::kept);
        AFTER;
    }
    AFTER;
}

int main() {
    catcher();
    return 1;
}
