/* Correct: finds functions by the C library's handle, as interpreters' foreign function interfaces do, and gives memory back
 * with them that the C library allocated for itself. What is wanted of the loader otherwise is unchanged. */
#include "program.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>

static void *use(void *argument) {
    void *libc = argument;
    void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(libc, "malloc");
    void *(*clear)(size_t, size_t) = (void *(*)(size_t, size_t))dlsym(libc, "calloc");
    void *(*resize)(void *, size_t) = (void *(*)(void *, size_t))dlsym(libc, "realloc");
    void (*give_back)(void *) = (void (*)(void *))dlsym(libc, "free");
    char *(*copy)(const char *) = (char *(*)(const char *))dlsym(libc, "strdup");
    EXPECT(allocate != NULL && clear != NULL && resize != NULL && give_back != NULL && copy != NULL);
    EXPECT(dlerror() == NULL);
    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
        give_back(object(size));
        give_back(copy("text"));
        free(allocate(size));
        free(clear(size, 2));
        give_back(resize(copy("longer text"), size));
        free(resize(malloc(10), size));
        char *line = NULL;
        size_t room = 0;
        FILE *stream = fopen("/proc/self/maps", "r");
        EXPECT(stream != NULL && getline(&line, &room, stream) > 0 && fclose(stream) == 0);
        give_back(line);
    }
    return NULL;
}

static void on_fault(int number) { (void)number; }

int main(void) {
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    EXPECT(libc != NULL);
    pthread_t threads[3];
    use(libc);
    for (int i = 0; i < 3; i++) EXPECT(pthread_create(&threads[i], NULL, use, libc) == 0);
    for (int i = 0; i < 3; i++) EXPECT(pthread_join(threads[i], NULL) == 0);

    void *program = dlopen(NULL, RTLD_NOW);
    EXPECT(program != NULL && dlsym(program, "malloc") == dlsym(libc, "malloc"));
    EXPECT(dlsym(RTLD_DEFAULT, "free") == dlsym(libc, "free"));
    EXPECT(dlsym(RTLD_NEXT, "free") != NULL && dlerror() == NULL);
    EXPECT(dlsym(libc, "no_such_symbol") == NULL && dlerror() != NULL && dlerror() == NULL);
    void *math = dlopen("libm.so.6", RTLD_NOW);
    EXPECT(math != NULL && dlsym(math, "cbrt") != NULL && dlerror() == NULL);

    /* A handler that is set so is the one that is told of. */
    int (*set)(int, const struct sigaction *, struct sigaction *) =
        (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(libc, "sigaction");
    struct sigaction mine = {.sa_handler = on_fault}, found;
    EXPECT(set(SIGSEGV, &mine, NULL) == 0 && sigaction(SIGSEGV, NULL, &found) == 0);
    EXPECT(found.sa_handler == on_fault);
    EXPECT(dlclose(libc) == 0);
    return 0;
}
