/* Bug: a forked child writes the byte behind an object of argv[1] bytes. The parent prints the child's
 * process id and ends as the child did. */
#include "program.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *p = object(size);
    pid_t child = fork();
    if (child == 0) {
        write_byte(p + size);
        release(p);
        _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) return 2;
    printf("%d\n", (int)child);
    fflush(stdout);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return 0;
}
