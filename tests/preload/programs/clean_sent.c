/* Correct: SIGSEGV and SIGBUS that are sent wait while they are blocked, until they are unblocked or waited for. */
#include "program.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t calls;
static siginfo_t last;
static sigset_t one, empty;

static void handler(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    calls++;
    last = *info;
}

static int is_pending(int number) {
    sigset_t pending;
    EXPECT(sigpending(&pending) == 0);
    return sigismember(&pending, number);
}

/* Sent to the thread, whoever else blocks what. */
static void to_the_thread(int number) {
    int taken = 0;
    struct timespec now = {0, 0};
    siginfo_t info;
    calls = 0;
    EXPECT(pthread_sigmask(SIG_BLOCK, &one, NULL) == 0);
    EXPECT(raise(number) == 0 && calls == 0 && is_pending(number));
    /* A standard signal is pending once. */
    EXPECT(raise(number) == 0 && calls == 0);
    EXPECT(sigwait(&one, &taken) == 0 && taken == number && !is_pending(number));
    EXPECT(sigtimedwait(&one, &info, &now) == -1 && errno == EAGAIN);
    EXPECT(pthread_kill(pthread_self(), number) == 0);
    EXPECT(pthread_sigmask(SIG_UNBLOCK, &one, NULL) == 0 && calls == 1);
    EXPECT(raise(number) == 0 && calls == 2);
}

static void to_the_process(int number) {
    union sigval value = {.sival_int = 4711};
    siginfo_t info;
    int status;
    calls = 0;
    EXPECT(sigprocmask(SIG_BLOCK, &one, NULL) == 0);
    EXPECT(sigqueue(getpid(), number, value) == 0);
    EXPECT(sigwaitinfo(&one, &info) == number && info.si_code == SI_QUEUE && info.si_value.sival_int == 4711);

    int descriptor = signalfd(-1, &one, SFD_NONBLOCK | SFD_CLOEXEC);
    struct signalfd_siginfo read_info;
    EXPECT(kill(getpid(), number) == 0);
    EXPECT(read(descriptor, &read_info, sizeof read_info) == sizeof read_info);
    EXPECT(read_info.ssi_signo == (unsigned)number && read_info.ssi_pid == (unsigned)getpid());
    close(descriptor);

    EXPECT(kill(getpid(), number) == 0 && calls == 0);
    EXPECT(sigsuspend(&empty) == -1 && errno == EINTR && calls == 1 && !is_pending(number));

    /* What is blocked waits even where it would be ignored. */
    struct sigaction before;
    EXPECT(sigaction(number, NULL, &before) == 0 && signal(number, SIG_IGN) != SIG_ERR);
    EXPECT(kill(getpid(), number) == 0 && is_pending(number));
    EXPECT(sigaction(number, &before, NULL) == 0);
    EXPECT(sigprocmask(SIG_SETMASK, &empty, NULL) == 0);

    /* By another process, during the wait. */
    calls = 0;
    EXPECT(sigprocmask(SIG_BLOCK, &one, NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        struct timespec moment = {0, 50000000};
        nanosleep(&moment, NULL);
        _exit(kill(getppid(), number));
    }
    EXPECT(sigwaitinfo(&one, &info) == number && info.si_code == SI_USER && info.si_pid == child);
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);

    /* The default, once it is unblocked. */
    if ((child = fork()) == 0) {
        signal(number, SIG_DFL);
        kill(getpid(), number);
        if (!is_pending(number)) _exit(1);
        sigprocmask(SIG_UNBLOCK, &one, NULL);
        _exit(2);
    }
    EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == number);
    EXPECT(kill(getpid(), number) == 0 && calls == 0);
    EXPECT(sigprocmask(SIG_UNBLOCK, &one, NULL) == 0 && calls == 1);
    EXPECT(last.si_code == SI_USER && last.si_pid == getpid());

    /* Who ignores a signal takes back what waits. */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    EXPECT(sigprocmask(SIG_BLOCK, &one, NULL) == 0 && kill(getpid(), number) == 0 && raise(number) == 0);
    EXPECT(is_pending(number) && sigaction(number, &ignore, &before) == 0 && !is_pending(number));
    EXPECT(sigaction(number, &before, NULL) == 0 && !is_pending(number));
    EXPECT(sigprocmask(SIG_UNBLOCK, &one, NULL) == 0 && calls == 1);
}

static void *thread(void *number) {
    to_the_thread(*(int *)number);
    return NULL;
}

int main(void) {
    int numbers[] = {SIGSEGV, SIGBUS};
    sigemptyset(&empty);
    for (int index = 0; index < 2; index++) {
        struct sigaction action = {.sa_flags = SA_SIGINFO, .sa_sigaction = handler};
        pthread_t other;
        EXPECT(sigaction(numbers[index], &action, NULL) == 0);
        sigemptyset(&one);
        sigaddset(&one, numbers[index]);
        to_the_thread(numbers[index]);
        to_the_process(numbers[index]);
        EXPECT(pthread_create(&other, NULL, thread, &numbers[index]) == 0 && pthread_join(other, NULL) == 0);
    }
    release(object(100));
    return 0;
}
