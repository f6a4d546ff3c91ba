// A library whose constructor makes and unmakes objects, before those of the preloaded library run.
#include "../preload/programs/program.h"

static int *kept;

__attribute__((constructor)) static void begin() {
    int *p = new int[100];
    HIDE(p);
    delete[] p;
    kept = new int[7];
}

extern "C" void early_end() {
    HIDE(kept);
    delete[] kept;
}
