/* Threads that allocate, interrupted a third of a millisecond after the last time by a handler that allocates,
 * frees, resizes and now and then forks, and is itself interrupted by another. Arguments: the number of
 * interruptions, of how many one forks (0: none), and, if there is a third, on alternate stacks. */
#include "storm.h"

#define THREADS 4
#define OWN 64
#define PERIOD_NS 300000

struct worker {
    struct parcel own[OWN];
    struct parcel in_handler[OWN];
    struct parcel in_second[OWN];
    uint64_t state, second_state;
    timer_t timers[2];
    volatile sig_atomic_t within;
    int number;
};

static __thread struct worker *self;
static atomic_long interruptions, forks, actions;
static atomic_int stop;
static long every;

/* The next signal comes so long after this one was handled: however slow the machine is, the thread gets on. */
static void send_again(struct worker *worker, int which) {
    struct itimerspec once = {{0, 0}, {0, PERIOD_NS * (which ? 3 : 1)}};
    if (worker) timer_settime(worker->timers[which], 0, &once, NULL);
}

static void on_signal(int number) {
    int before = errno;
    struct worker *worker = self;
    if (worker && !stop) {
        for (int i = 0; i < 5; i++) act(worker->in_handler, OWN, &worker->state);
        long here = ++interruptions;
        if (every && here % every == 0) {
            forks++;
            pid_t pid = fork();
            if (pid == 0) {
                alarm(CHILD_SECONDS);
                struct parcel own[8] = {0};
                for (int i = 0; i < OWN; i++) drop(&worker->in_handler[i]);
                for (int i = 0; i < 32; i++) act(own, 8, &worker->state);
                /* One in two goes on where its parent was interrupted, and ends there. */
                if (here / every % 2) _exit(0);
                worker->within = 1;
                return;
            }
            expect(pid, "fork in a handler", here);
        }
    }
    send_again(worker, 0);
    errno = before;
}

static void on_second(int number) {
    int before = errno;
    struct worker *worker = self;
    if (worker && !stop)
        for (int i = 0; i < 5; i++) act(worker->in_second, OWN, &worker->second_state);
    send_again(worker, 1);
    errno = before;
}

/* Makes a timer that sends `number` to the calling thread. */
static timer_t sender(int number) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = number};
    event._sigev_un._tid = syscall(SYS_gettid);
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer)) fail("no timer\n");
    return timer;
}

static void *work(void *argument) {
    struct worker *worker = argument;
    uint64_t state = 77 + worker->number;
    worker->state = 99991 + worker->number;
    self = worker;
    worker->second_state = 424243 + worker->number;
    worker->timers[0] = sender(SIGUSR1), worker->timers[1] = sender(SIGUSR2);
    send_again(worker, 0), send_again(worker, 1);
    while (!stop) {
        for (int i = 0; i < 20; i++) act(worker->own, OWN, &state);
        actions++;
        if (worker->within) {
            for (int i = 0; i < 500; i++) act(worker->own, OWN, &state);
            _exit(0);
        }
    }
    timer_delete(worker->timers[0]);
    timer_delete(worker->timers[1]);
    return NULL;
}

int main(int count, char **arguments) {
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    long wanted = atol(arguments[1]);
    every = atol(arguments[2]);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (arguments[3] ? SA_ONSTACK : 0)};
    sigaction(SIGUSR1, &action, NULL);
    action.sa_handler = on_second;
    sigaction(SIGUSR2, &action, NULL);
    for (int i = 0; i < THREADS; i++) {
        workers[i].number = i;
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    long last_interruptions = 0, last_actions = 0, still = 0;
    while (interruptions < wanted) {
        usleep(100000);
        still = interruptions == last_interruptions || actions == last_actions ? still + 1 : 0;
        if (still > 150) fail("hangs after %ld interruptions, %ld actions, %ld forks\n", interruptions, actions, forks);
        last_interruptions = interruptions, last_actions = actions;
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        for (int j = 0; j < OWN; j++) drop(&workers[i].own[j]), drop(&workers[i].in_handler[j]), drop(&workers[i].in_second[j]);
    say("%ld interruptions, %ld actions, %ld forks\n", interruptions, actions, forks);
    return 0;
}
