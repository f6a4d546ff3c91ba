/* A report waits for a reader that never comes: standard error is a full pipe. Meanwhile the process ends with status 3.
 * Arguments: what is reported (free: a double free, fault: an access behind an object, 5000 bytes or what the third says),
 * and who ends it (handler: _exit in a signal handler of this thread, exit: exit there, thread: _exit by another thread,
 * exit_thread: exit by another thread). */
#include "program.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

static int by_exit;

static void on_alarm(int number) {
    if (by_exit) exit(3);
    _exit(3);
}

static void *end(void *unused) {
    usleep(300000);
    on_alarm(0);
    return unused;
}

int main(int argc, char **argv) {
    static char bytes[4096];
    int ends[2];
    EXPECT(pipe2(ends, O_NONBLOCK) == 0);
    while (write(ends[1], bytes, sizeof bytes) > 0) {}
    while (write(ends[1], bytes, 1) > 0) {}
    EXPECT(fcntl(ends[1], F_SETFL, 0) == 0);
    EXPECT(dup2(ends[1], 2) == 2);

    by_exit = !strncmp(argv[2], "exit", 4);
    if (strstr(argv[2], "thread")) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, end, NULL) == 0);
    } else {
        struct itimerval later = {{0, 0}, {0, 300000}};
        signal(SIGALRM, on_alarm);
        EXPECT(setitimer(ITIMER_REAL, &later, NULL) == 0);
    }
    size_t size = argc > 3 ? number(argv, 3) : 5000;
    char *p = object(size);
    if (!strcmp(argv[1], "fault")) {
        write_byte(p + 16384);
    } else {
        release(p);
        release(p);
    }
    puts("the report was written");
    return 1;
}
