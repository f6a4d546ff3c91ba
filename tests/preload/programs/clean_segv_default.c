/* Correct: a child that dereferences null dies of SIGSEGV, an ignored or restored handler included. */
#include "program.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    for (int way = 0; way < 3; way++) {
        pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            /* The report of it is not for the test. */
            dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
            char *p = NULL;
            HIDE(p);
            if (way == 1) signal(SIGSEGV, SIG_DFL);
            if (way == 2) signal(SIGSEGV, SIG_IGN);
            write_byte(p);
            _exit(0);
        }
        int status = 0;
        EXPECT(waitpid(child, &status, 0) == child);
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    }
    return 0;
}
