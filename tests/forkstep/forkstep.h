/* What the tracer and the traced process share: a page that both have mapped, and the futexes in it. */
#pragma once
#include "../storm/storm.h"
#include <linux/futex.h>
#include <sys/mman.h>

/* The tracer's status where tracing is not permitted. */
#define NOT_PERMITTED 77

/* Each word changes once for each hand-over, and its reader sleeps on it. */
struct board {
    /* The thread to be traced, from when it runs until the tracer has it. */
    atomic_uint traced;
    /* Set by the tracer: the thread that may begin. */
    atomic_uint begin;
    /* The number of forks that the tracer asked for, and that were answered. */
    atomic_uint asked, answered;
    /* What became of the last one: the child's status, or less than 0 for an error of fork. */
    atomic_int status;
    /* Whether the traced thread is in its signal handler. */
    atomic_int in_handler;
};

/* Sleeps while the word is `value`; whether it changed within the seconds. */
static int changed(atomic_uint *word, unsigned value, int seconds) {
    struct timespec limit = {seconds, 0};
    while (*word == value)
        if (syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0) && errno == ETIMEDOUT) return *word != value;
    return 1;
}

static void set(atomic_uint *word, unsigned value) {
    *word = value;
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* The operations of the traced thread, by name. */
static const char *const operations[] = {"small", "flush", "pages", "large", "cross", "trim", "sweep", "signals"};
#define OPERATIONS (sizeof operations / sizeof *operations)
