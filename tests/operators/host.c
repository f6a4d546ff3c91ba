/* Correct: a program in C that opens a library in C++ with operators of its own, for itself or for all, and uses it. */
#include "../preload/programs/program.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW | (argc > 2 ? RTLD_GLOBAL : RTLD_LOCAL));
    EXPECT(library != NULL);
    int (*use)(void) = (int (*)(void))dlsym(library, "library_use");
    for (int round = 0; round < 1000; round++) EXPECT(use() == 8);
    EXPECT(dlclose(library) == 0);
    puts("done");
    return 0;
}
