/* Children of every kind allocate, free what the parent allocated, and draw other random numbers than the parent
 * and than each other. With `fault` a child frees twice instead; it says its number and its parent's first. */
#include "storm.h"
#include <sched.h>
#include <spawn.h>

#define OBJECTS 400

extern char **environ;

static const char *kinds[] = {"fork", "raw clone"};

/* Where new objects come to lie. Sizes alternate, so that both allocators are asked in every mode. */
static void places(uintptr_t *out) {
    for (int i = 0; i < OBJECTS; i++) out[i] = (uintptr_t)malloc(i % 2 ? 40 : 5000);
}

static pid_t begin(int kind) {
    return kind == 0 ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void differ(const uintptr_t *one, const uintptr_t *other, const char *what, const char *kind) {
    int equal = 0;
    for (int i = 0; i < OBJECTS; i++) equal += one[i] == other[i];
    /* A class's objects come in an order drawn at random; pages have one place in several. */
    if (equal > OBJECTS * 3 / 4) fail("%s: %d of %d places are %s\n", kind, equal, OBJECTS, what);
    say("%s: %d of %d places are %s\n", kind, equal, OBJECTS, what);
}

int main(int count, char **arguments) {
    static uintptr_t parent[OBJECTS];
    uintptr_t child[3][OBJECTS];
    int pipes[2];
    if (pipe(pipes)) return 2;
    char *inherited[64];
    for (int i = 0; i < 64; i++) inherited[i] = malloc(100 + 200 * i);

    if (arguments[1]) {
        pid_t pid = fork();
        if (pid == 0) {
            say("child %d of %d\n", getpid(), getppid());
            /* Of the page allocator in every mode, so that the report has who allocated and who freed it. */
            free(inherited[40]);
            free(inherited[40]);
            _exit(3);
        }
        int status;
        waitpid(pid, &status, 0);
        say("the child's signal is %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
        return 0;
    }

    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < 3; i++) {
            pid_t pid = begin(kind);
            if (pid == 0) {
                alarm(CHILD_SECONDS);
                uintptr_t mine[OBJECTS];
                for (int j = 0; j < 64; j++) free(inherited[j]);
                places(mine);
                for (int j = 0; j < OBJECTS; j++) free((void *)mine[j]);
                _exit(write(pipes[1], mine, sizeof mine) != sizeof mine);
            }
            expect(pid, kinds[kind], i);
            if (read(pipes[0], child[i], sizeof child[i]) != sizeof child[i]) fail("no answer\n");
        }
        differ(child[0], child[1], "two children's", kinds[kind]);
        differ(child[1], child[2], "two children's", kinds[kind]);
        if (kind == 0) places(parent);
        if (kind == 0) differ(child[0], parent, "parent's and child's", kinds[kind]);
    }

    /* These share the parent's memory until they execute another program. */
    for (int i = 0; i < 20; i++) {
        char *made = NULL;
        pid_t pid = vfork();
        if (pid == 0) {
            made = malloc(1000);
            free(inherited[i]);
            execl("/bin/true", "true", NULL);
            _exit(9);
        }
        expect(pid, "vfork", i);
        inherited[i] = made;
        char *words[] = {"true", NULL};
        if (posix_spawn(&pid, "/bin/true", NULL, NULL, words, environ)) fail("no spawn\n");
        expect(pid, "posix_spawn", i);
    }
    for (int i = 0; i < 64; i++) free(inherited[i]);
    /* A child's child's child. */
    for (int depth = 0; depth < 20; depth++) {
        pid_t pid = fork();
        if (pid != 0) {
            expect(pid, "generation", depth);
            return 0;
        }
        alarm(CHILD_SECONDS);
        for (int i = 0; i < 50; i++) free(malloc(10 + 300 * i));
    }
    return 0;
}
