/* Correct: constructors, destructors, atexit and on_exit handlers allocate and free. */
#include "program.h"

static char *early, *late;

__attribute__((constructor)) static void construct(void) { early = object(77); }
__attribute__((destructor)) static void destruct(void) {
    release(early);
    release(object(5000));
}

static void at_exit(void) {
    release(late);
    late = object(64);
}

static void on_exit_with(int status, void *p) {
    (void)status;
    release(p);
    release(late);
}

int main(void) {
    late = object(6000);
    on_exit(on_exit_with, object(32));
    atexit(at_exit);
    for (int i = 0; i < 200; i++) atexit(at_exit);
    return 0;
}
