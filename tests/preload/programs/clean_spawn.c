/* Correct: vfork with exec, posix_spawn, popen and system. */
#include "program.h"
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void expect_end(pid_t child) {
    int status = 1;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

int main(void) {
    char *arguments[] = {"true", NULL};
    for (volatile int i = 0; i < 10; i++) {
        pid_t child = vfork();
        if (child == 0) {
            execvp(arguments[0], arguments);
            _exit(9);
        }
        expect_end(child);
        EXPECT(posix_spawnp(&child, arguments[0], NULL, NULL, arguments, environ) == 0);
        expect_end(child);
        release(object(1000));
    }
    char line[16] = "";
    FILE *pipe = popen("echo through a pipe", "r");
    EXPECT(pipe != NULL && fgets(line, sizeof line, pipe) != NULL && pclose(pipe) == 0);
    EXPECT(strcmp(line, "through a pipe\n") == 0);
    EXPECT(system("exit 3") == 3 << 8);
    return 0;
}
