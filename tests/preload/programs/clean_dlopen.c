/* Correct: opens libraries while it runs, calls them, closes them, and fails to open one. */
#include "program.h"
#include <dlfcn.h>
#include <pthread.h>

static void *try_all(void *argument) {
    static const char *names[] = {"libm.so.6", "libz.so.1", "libstdc++.so.6", "libresolv.so.2"};
    (void)argument;
    for (int round = 0; round < 10; round++) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            void *library = dlopen(names[i], round % 2 ? RTLD_NOW : RTLD_LAZY);
            if (library == NULL) {
                EXPECT(dlerror() != NULL);
                continue;
            }
            EXPECT(dlsym(library, "no_such_symbol") == NULL && dlerror() != NULL);
            double (*root)(double) = (double (*)(double))dlsym(library, "cbrt");
            if (i == 0) EXPECT(root != NULL && root(27) > 2.99);
            EXPECT(dlclose(library) == 0);
        }
    }
    EXPECT(dlopen("libno_such_library.so", RTLD_NOW) == NULL && dlerror() != NULL);
    return NULL;
}

int main(void) {
    pthread_t threads[3];
    try_all(NULL);
    for (int i = 0; i < 3; i++) EXPECT(pthread_create(&threads[i], NULL, try_all, NULL) == 0);
    for (int i = 0; i < 3; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(dlsym(RTLD_NEXT, "malloc") != NULL || dlsym(RTLD_DEFAULT, "malloc") != NULL);
    return 0;
}
