/* Pointers that are none. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct link {
    struct link *next;
    long value;
    char name[5];
};

static void handler(int signal) {
    (void)signal;
    _exit(7);
}

__attribute__((noinline)) static long follow(struct link *link) {
    return link->next->value; /* MARK follow */
}

__attribute__((noinline)) static void store(struct link *link) {
    link->next->value = 1; /* MARK store */
}

static const char fixed[4096] = "fixed";

__attribute__((noinline)) static void constant(void) {
    *(volatile char *)fixed = 1; /* MARK constant */
}

static char *object;

static void overrun(int signal) {
    (void)signal;
    object[32] = 1;
}

/* Overruns an object where the kernel can call no handler. */
static void hide(const char *how) {
    static char small[2048];
    object = malloc(32);
    uint64_t all = ~(uint64_t)0;
    if (!strcmp(how, "blocked")) {
        syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8);
    } else if (!strcmp(how, "ignored")) {
        struct {
            void (*handler)(int);
            unsigned long flags;
            void *restorer;
            uint64_t mask;
        } ignore = {SIG_IGN, 0, NULL, 0};
        syscall(SYS_rt_sigaction, SIGSEGV, &ignore, NULL, 8);
    } else if (!strcmp(how, "masked")) {
        struct sigaction action = {.sa_handler = overrun};
        sigfillset(&action.sa_mask);
        sigaction(SIGUSR1, &action, NULL);
        raise(SIGUSR1);
    } else {
        stack_t stack = {.ss_sp = small, .ss_size = sizeof small};
        syscall(SYS_sigaltstack, &stack, NULL);
    }
    overrun(0);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    struct link *link = malloc(sizeof *link);
    if (!strcmp(what, "text")) {
        memcpy(link, "overwritten by text", 16);
        store(link);
    } else if (!strcmp(what, "unwritten")) {
        return follow(link) == 0;
    } else if (!strcmp(what, "canary")) {
        /* 21 bytes, and a pointer is read from the eleven behind them. */
        char *object = malloc(21);
        memset(object, 0, 21);
        memcpy(&link->next, object + 24, 8);
        return follow(link) == 0;
    } else if (!strcmp(what, "handled")) {
        signal(SIGSEGV, handler);
        memcpy(link, "overwritten by text", 16);
        store(link);
    } else if (!strcmp(what, "null")) {
        link->next = NULL;
        store(link);
    } else if (!strcmp(what, "null-handled")) {
        signal(SIGSEGV, handler);
        link->next = NULL;
        store(link);
    } else if (!strcmp(what, "low")) {
        link->next = (struct link *)0x10000;
        return follow(link) == 0;
    } else if (!strcmp(what, "constant")) {
        constant();
    } else {
        hide(what);
    }
    return 0;
}
