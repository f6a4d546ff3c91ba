/* Reads a freed object while nobody reads what goes to standard error. The signal comes while the report waits: its
 * handler ends the program, jumps out of the report, faults itself, or is sent another signal. */
#include "program.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

static int ends[2];
static const char *what;
static sigjmp_buf back;

static void fill(void) {
    char bytes[4096] = {0};
    EXPECT(pipe(ends) == 0 && dup2(ends[1], 2) == 2);
    EXPECT(fcntl(2, F_SETFL, O_NONBLOCK) == 0);
    while (write(2, bytes, sizeof bytes) > 0) {}
    while (write(2, bytes, 1) > 0) {}
    EXPECT(fcntl(2, F_SETFL, 0) == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
}

static void drain(void) {
    char bytes[4096];
    while (read(ends[0], bytes, sizeof bytes) > 0) {}
}

static void on_segv(int number) {
    (void)number;
    _exit(4);
}

static void on_alarm(int number) {
    (void)number;
    for (int size = 1; size < 9000; size += 300) release(object(size));
    if (!strcmp(what, "exit")) _exit(3);
    if (!strcmp(what, "jump")) siglongjmp(back, 1);
    if (!strcmp(what, "send")) kill(getpid(), SIGSEGV);
    drain();
    if (!strcmp(what, "fault")) *(volatile char *)16 = 1;
}

int main(int count, char **arguments) {
    EXPECT(count == 4);
    what = arguments[1];
    struct sigaction action = {.sa_handler = on_alarm};
    action.sa_flags = strcmp(arguments[2], "onstack") ? 0 : SA_ONSTACK;
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    if (!strcmp(what, "send")) EXPECT(signal(SIGSEGV, on_segv) != SIG_ERR);
    char *freed = object(5000), *live = object(5000);
    release(freed);
    fill();
    if (sigsetjmp(back, 1)) {
        /* The heap goes on, and a second report comes as if there had been no first one. */
        drain();
        for (int size = 1; size < 9000; size += 300) release(object(size));
        what = "";
        freed = live;
        release(live);
    }
    ualarm(100000, 0);
    if (!strcmp(arguments[3], "foreign")) return *(volatile char *)(1ULL << 63);
    return *(volatile char *)freed;
}
