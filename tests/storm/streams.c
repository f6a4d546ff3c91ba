/* Forks beside threads that allocate while they have locks of the C library's: of a stream, of the list of streams, of
 * the user database, of the loader, of the list of functions at exit, of the locale. Handlers of the program's own run
 * around each fork, some of them registered before anything allocated. Arguments: the number of forks. */
#include "storm.h"
#include <dlfcn.h>
#include <locale.h>
#include <pwd.h>

/* Registrations at exit, which are never taken back before. */
#define AT_EXIT 2000

static FILE *stream;
static atomic_int stop, handlers;
static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;

static void use_heap(void) {
    static const size_t some[] = {40, 600, 5000, 100000};
    for (int i = 0; i < 4; i++) {
        unsigned char *volatile bytes = malloc(some[i]);
        if (!bytes) fail("no memory\n");
        bytes[0] = bytes[some[i] - 1] = 1;
        free(bytes);
    }
}

/* As libraries do: their lock is held across the fork, and who holds it allocates. */
static void before(void) { pthread_mutex_lock(&own), handlers++, use_heap(); }
static void after(void) { use_heap(), pthread_mutex_unlock(&own); }

static void register_early(int count, char **arguments, char **environment) {
    pthread_atfork(before, after, after);
}
__attribute__((section(".preinit_array"), used)) static void (*const early)(int, char **, char **) = register_early;

static void late_before(void) { use_heap(); }
static void late_after(void) { use_heap(); }

static void *hold_stream(void *unused) {
    while (!stop) {
        flockfile(stream);
        fputs("a line\n", stream);
        use_heap();
        funlockfile(stream);
    }
    return unused;
}

static void *flush_all(void *unused) {
    while (!stop) fflush(NULL);
    return unused;
}

static void *read_lines(void *unused) {
    while (!stop) {
        FILE *file = fopen("/proc/self/status", "r");
        char *line = NULL;
        size_t size = 0;
        while (file && getdelim(&line, &size, '\t', file) > 0 && getline(&line, &size, file) > 0) {}
        free(line);
        if (file) fclose(file);
    }
    return unused;
}

static void *look_up(void *unused) {
    while (!stop) {
        getpwnam("root");
        getpwnam("nobody-of-this-name");
    }
    return unused;
}

static void *load(void *unused) {
    while (!stop) {
        void *library = dlopen("libresolv.so.2", RTLD_NOW);
        if (library) dlclose(library);
    }
    return unused;
}

static void at_end(void) {}

static void *change(void *unused) {
    for (int i = 0; !stop; i++) {
        setlocale(LC_ALL, i % 2 ? "C" : "C.UTF-8");
        if (i < AT_EXIT) atexit(at_end);
        pthread_mutex_lock(&own);
        use_heap();
        pthread_mutex_unlock(&own);
    }
    return unused;
}

static void child(uint64_t state) {
    alarm(CHILD_SECONDS);
    struct parcel own[16] = {0};
    for (int i = 0; i < 64; i++) act(own, 16, &state);
    FILE *file = fopen("/dev/null", "w");
    if (!file || fprintf(file, "%d\n", getpid()) < 2 || fclose(file)) fail("a child has no streams\n");
    for (int i = 0; i < 16; i++) drop(&own[i]);
    _exit(0);
}

int main(int count, char **arguments) {
    void *(*const threads[])(void *) = {hold_stream, flush_all, read_lines, look_up, load, change};
    enum { THREADS = sizeof threads / sizeof *threads };
    pthread_t ids[THREADS];
    long forks = atol(arguments[1]);
    stream = fopen("/dev/null", "w");
    pthread_atfork(late_before, late_after, late_after);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&ids[i], NULL, threads[i], NULL)) fail("no thread\n");
    for (long i = 0; i < forks; i++) {
        /* A fork that hangs ends the program by SIGALRM. */
        alarm(2 * CHILD_SECONDS);
        pid_t pid = fork();
        if (pid == 0) child(99 + i);
        expect(pid, "fork", i);
    }
    alarm(2 * CHILD_SECONDS);
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
    if (handlers != forks) fail("%d runs of the handlers for %ld forks\n", handlers, forks);
    say("%ld forks\n", forks);
    return 0;
}
