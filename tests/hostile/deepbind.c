/* Correct: opens a plugin with RTLD_DEEPBIND, which looks for `free` in its own libraries first; objects go both
 * ways. */
#include "../preload/programs/program.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
    (void)argc;
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    EXPECT(plugin != NULL);
    void (*take)(char *) = dlsym(plugin, "take");
    char *(*give)(size_t) = dlsym(plugin, "give");
    EXPECT(take != NULL && give != NULL);
    for (size_t size = 1; size < 500000; size = size * 3 + 1) {
        take(object(size));
        release(give(size));
    }
    EXPECT(dlclose(plugin) == 0);
    puts("done");
    return 0;
}
