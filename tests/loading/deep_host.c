/* Correct: opens the library argv[1] so that its own names come first, and asks it which function it calls where both
 * have one of the same name. Objects go both ways. argv[2] says by which function it is opened. */
#include "../preload/programs/program.h"
#include <dlfcn.h>

const char *whose(void) { return "program"; }

static void *open_deep(const char *path, const char *how) {
    const int flags = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND;
    if (strcmp(how, "base") == 0) return dlmopen(LM_ID_BASE, path, flags);
    if (strcmp(how, "new") == 0) return dlmopen(LM_ID_NEWLM, path, flags);
    return dlopen(path, flags);
}

int main(int argc, char **argv) {
    const char *how = argc > 2 ? argv[2] : "";
    void *library = open_deep(argv[1], how);
    if (library == NULL) {
        puts(dlerror());
        return 3;
    }
    const char *(*ask)(void) = (const char *(*)(void))dlsym(library, "ask");
    EXPECT(ask != NULL);
    puts(ask());
    void (*take)(char *) = (void (*)(char *))dlsym(library, "take");
    char *(*give)(size_t) = (char *(*)(size_t))dlsym(library, "give");
    if (take != NULL && strcmp(how, "new") != 0) {
        for (size_t size = 1; size < 500000; size = size * 3 + 1) {
            take(object(size));
            release(give(size));
        }
    }
    EXPECT(dlclose(library) == 0);
    return 0;
}
