/* Children of vfork each free an object twice, or use it after it was freed, one after another; then the parent does. Arguments:
 * the size, the number of children, and `use` or `free`. */
#include "program.h"
#include <sys/wait.h>
#include <unistd.h>

#define MOST 16

static char *objects[MOST];

static void err(int i, const char *how) {
    if (!strcmp(how, "use")) (void)read_byte(objects[i]);
    else release(objects[i]);
}

int main(int argc, char **argv) {
    size_t size = number(argv, 1);
    volatile int children = (int)number(argv, 2);
    for (int i = 0; i <= children; i++) objects[i] = object(size);
    for (int i = 0; i <= children; i++) release(objects[i]);
    for (volatile int i = 0; i < children; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            err(i, argv[3]);
            _exit(0);
        }
        int status = 0;
        EXPECT(waitpid(pid, &status, 0) == pid);
        dprintf(1, "%d %d\n", pid, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
    err(children, argv[3]);
    return 0;
}
