/* Correct: opens the library argv[1] in a running process with objects and threads of its own, and uses its
 * functions on old and new objects. With a third argument it frees one twice. */
#include "../preload/programs/program.h"
#include <dlfcn.h>
#include <pthread.h>

enum { OLD = 100 };

static void *thread(void *p) { return p; }

static void start_thread(void) {
    pthread_t started;
    EXPECT(pthread_create(&started, NULL, thread, NULL) == 0 && pthread_join(started, NULL) == 0);
}

int main(int argc, char **argv) {
    char *old[OLD];
    for (size_t i = 0; i < OLD; i++) old[i] = object(i * 777 + 1);
    start_thread();
    void *library = dlopen(argv[1], RTLD_NOW | (strcmp(argv[2], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL));
    if (library == NULL) puts(dlerror());
    EXPECT(library != NULL);
    void *(*allocate)(size_t) = dlsym(library, "malloc");
    void (*give_back)(void *) = dlsym(library, "free");
    void *(*resize)(void *, size_t) = dlsym(library, "realloc");
    size_t (*usable)(void *) = dlsym(library, "malloc_usable_size");
    EXPECT(allocate != malloc);
    for (size_t i = 0; i < OLD; i++) {
        EXPECT(usable(old[i]) >= i * 777 + 1);
        if (i % 2) old[i] = resize(old[i], i * 999 + 2);
        EXPECT(old[i][0] == 'o' && old[i][i * 777] == 'o');
    }
    char *new = allocate(100);
    EXPECT(usable(new) == 100);
    memset(new, 1, 100);
    for (size_t i = 0; i < OLD; i++) give_back(old[i]);
    give_back(new);
    start_thread();
    puts("done");
    fflush(stdout);
    if (argc > 3) give_back(new);
    return 0;
}
