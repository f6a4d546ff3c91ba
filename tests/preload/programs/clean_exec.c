/* Correct: a program that is executed begins with the signals ignored that its maker ignores, and with the mask of its
 * maker, whichever function executes it, after fork and after vfork; one that fails leaves everything as it was. */
#include "program.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
enum { IGNORED = 1, OTHER_IGNORED = 2, BLOCKED = 4, OTHER_BLOCKED = 8, WAYS = 13, LAST_EXEC = 9 };
static char self[4096];
static char *arguments[] = {self, "state", NULL};

/* What this process began with, as the C library knows it. */
static int state(void) {
    struct sigaction first, second;
    sigset_t mask;
    EXPECT(sigaction(SIGSEGV, NULL, &first) == 0 && sigaction(SIGBUS, NULL, &second) == 0);
    EXPECT(sigprocmask(SIG_BLOCK, NULL, &mask) == 0);
    return (first.sa_handler == SIG_IGN ? IGNORED : 0) | (second.sa_handler == SIG_IGN ? OTHER_IGNORED : 0) |
           (sigismember(&mask, SIGSEGV) ? BLOCKED : 0) | (sigismember(&mask, SIGBUS) ? OTHER_BLOCKED : 0);
}

static void execute(int way) {
    switch (way) {
    case 0: execve(self, arguments, environ); break;
    case 1: execv(self, arguments); break;
    case 2: execvp(self, arguments); break;
    case 3: execvpe(self, arguments, environ); break;
    case 4: execl(self, self, "state", (char *)NULL); break;
    case 5: execlp(self, self, "state", "3", "4", "5", "6", "7", "8", (char *)NULL); break;
    case 6: execle(self, self, "state", "3", "4", "5", "6", (char *)NULL, environ); break;
    case 7: fexecve(open(self, O_RDONLY | O_CLOEXEC), arguments, environ); break;
    case 8: execveat(AT_FDCWD, self, arguments, environ, 0); break;
    }
    _exit(127);
}

static int made(int way, int by_vfork) {
    int status = -1;
    pid_t child = -1;
    char line[5000];
    if (way < LAST_EXEC) {
        child = by_vfork ? vfork() : fork();
        if (child == 0) execute(way);
    } else if (way == 9) {
        EXPECT(posix_spawn(&child, self, NULL, NULL, arguments, environ) == 0);
    } else if (way == 10) {
        EXPECT(posix_spawnp(&child, self, NULL, NULL, arguments, environ) == 0);
    } else {
        snprintf(line, sizeof line, "exec '%s' state", self);
        status = way == 11 ? system(line) : pclose(popen(line, "r"));
    }
    if (child != -1) EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static unsigned long kernels[2][4];
static void ask_kernel(int index) {
    EXPECT(syscall(SYS_rt_sigaction, index == 0 ? SIGSEGV : SIGBUS, NULL, kernels[index], 8) == 0);
}

static void unchanged(void) {
    unsigned long before[2][4];
    memcpy(before, kernels, sizeof before);
    ask_kernel(0), ask_kernel(1);
    EXPECT(memcmp(before, kernels, sizeof before) == 0);
}

static void all_ways(int expected) {
    ask_kernel(0), ask_kernel(1);
    EXPECT(state() == expected);
    for (int way = 0; way < WAYS; way++) {
        for (int by_vfork = 0; by_vfork < 2; by_vfork++) {
            int found = made(way, by_vfork);
            if (found != expected) printf("way %d, vfork %d: %d and not %d\n", way, by_vfork, found, expected);
            EXPECT(found == expected);
        }
        unchanged();
    }
    char *nothing[] = {(char *)"/nowhere/nothing", NULL};
    EXPECT(execv(nothing[0], nothing) == -1 && errno == ENOENT);
    EXPECT(execl(nothing[0], nothing[0], "a", "b", "c", "d", "e", "f", (char *)NULL) == -1 && errno == ENOENT);
    EXPECT(execle(nothing[0], nothing[0], "a", "b", "c", "d", "e", "f", (char *)NULL, environ) == -1 && errno == ENOENT);
    pid_t child = vfork();
    if (child == 0) {
        execvp(nothing[0], nothing);
        _exit(errno == ENOENT ? 0 : 1);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    unchanged();
    EXPECT(state() == expected);
}

static void handler(int number) { (void)number; }

static void *thread(void *unused) {
    for (int i = 0; i < 10; i++) EXPECT(made(9, 0) == (IGNORED | OTHER_IGNORED));
    return unused;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "state") == 0) return state();
    EXPECT(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    if (argc > 1) {
        signal(SIGSEGV, SIG_IGN);
        EXPECT(execv("/nowhere/nothing", arguments) == -1 && made(0, 1) == IGNORED && made(9, 0) == IGNORED);
        char *p = object(5000);
        release(p);
        return read_byte(p);
    }
    all_ways(0);
    signal(SIGSEGV, SIG_IGN);
    all_ways(IGNORED);
    signal(SIGBUS, SIG_IGN);
    all_ways(IGNORED | OTHER_IGNORED);
    pthread_t threads[4];
    ask_kernel(0), ask_kernel(1);
    for (int i = 0; i < 4; i++) EXPECT(pthread_create(&threads[i], NULL, thread, NULL) == 0);
    for (int i = 0; i < 4; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    unchanged();
    /* A child of vfork sets its own, and does not know of its parent's. */
    pid_t child = vfork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        execute(0);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == OTHER_IGNORED);
    child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, handler);
        execute(4);
    }
    EXPECT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 0);
    signal(SIGSEGV, handler);
    signal(SIGBUS, SIG_DFL);
    all_ways(0);
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGSEGV);
    EXPECT(sigprocmask(SIG_BLOCK, &both, NULL) == 0);
    all_ways(BLOCKED);
    sigaddset(&both, SIGBUS);
    EXPECT(sigprocmask(SIG_UNBLOCK, &both, NULL) == 0);
    sigfillset(&both);
    EXPECT(sigprocmask(SIG_SETMASK, &both, NULL) == 0);
    all_ways(BLOCKED | OTHER_BLOCKED);
    sigemptyset(&both);
    EXPECT(sigprocmask(SIG_SETMASK, &both, NULL) == 0);
    /* As those do who start programs: all is blocked meanwhile, and the child has its own mask again. */
    sigset_t all, old;
    sigfillset(&all);
    EXPECT(sigprocmask(SIG_SETMASK, &all, &old) == 0);
    child = vfork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &old, NULL);
        execute(1);
    }
    EXPECT(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
    EXPECT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 0);
    return 0;
}
