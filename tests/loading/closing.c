/* Correct: opens a library with an allocator, argv[1], uses the functions argv[2] and argv[3] in a thread, closes it while
 * the thread lives, and goes on: the thread ends, the process forks, takes a fault of its own, and opens it again. */
#include "../preload/programs/program.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_barrier_t barrier;
static void *(*allocate)(size_t);
static void (*give_back)(void *);
static char *page;

static void use(void) {
    for (size_t size = 1; size < 100000; size = size * 3 + 1) {
        char *p = allocate(size);
        EXPECT(p != NULL);
        memset(p, 1, size);
        give_back(p);
    }
}

static void *thread(void *argument) {
    use();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return argument;
}

/* Opens, uses and closes it all in one thread. */
static void *alone(void *argument) {
    void *library = dlopen(argument, RTLD_NOW | RTLD_LOCAL);
    EXPECT(library != NULL);
    use();
    EXPECT(dlclose(library) == 0);
    return NULL;
}

static void on_fault(int signal) {
    (void)signal;
    EXPECT(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
}

static void open_and_close(const char *path, char **names) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) puts(dlerror());
    EXPECT(library != NULL);
    allocate = (void *(*)(size_t))dlsym(library, names[0]);
    give_back = (void (*)(void *))dlsym(library, names[1]);
    EXPECT(allocate != NULL && allocate != malloc && give_back != NULL);
    pthread_t threads[3];
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 3; i++) EXPECT(pthread_create(&threads[i], NULL, thread, NULL) == 0);
    use();
    pthread_barrier_wait(&barrier);
    EXPECT(dlclose(library) == 0);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    pthread_t one;
    EXPECT(pthread_create(&one, NULL, alone, (void *)path) == 0 && pthread_join(one, NULL) == 0);
}

int main(int argc, char **argv) {
    (void)argc;
    for (int round = 0; round < 3; round++) {
        open_and_close(argv[1], argv + 2);
        pid_t child = fork();
        if (child == 0) _exit(3);
        int status;
        EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
    }
    page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(page != MAP_FAILED);
    signal(SIGSEGV, on_fault);
    write_byte(page);
    puts("done");
    return 0;
}
