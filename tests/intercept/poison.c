/* A pool whose free parts nobody may touch.
 *
 *   poison semantics            what is poisoned and what is not, step by step: prints "ok"
 *   poison storm                threads, a handler and forked children that share the pages of a pool: prints "ok"
 *   poison limit                address space is limited after the first poison: prints "ok"
 *   poison freed|over|behind poison|unpoison   a range that is not one live object's
 *   poison store|load           an instruction that touches a whole page of poisoned bytes; prints "on" if it goes on
 *   poison barrier              a page of the program's own closing, with poison beside it: prints "ok"
 */
#define _GNU_SOURCE
#include "../../ffi/include/fencepost.h"
#include "expect.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma weak fencepost_bounds
#pragma weak fencepost_check
#pragma weak fencepost_check_range
#pragma weak fencepost_poison
#pragma weak fencepost_unpoison

#define FINE(from, count) expect("line " LINE(__LINE__) " fine", size, fencepost_check_range(from, count), FENCEPOST_FINE)
#define BAD(from, count) expect("line " LINE(__LINE__) " bad", size, fencepost_check_range(from, count), FENCEPOST_POISONED)
#define LINE(line) TEXT(line)
#define TEXT(line) #line

/* A pattern that depends on the place. */
static void fill(unsigned char *from, size_t count, unsigned seed) {
    for (size_t i = 0; i < count; i++) from[i] = (unsigned char)(seed + i * 7);
}

static int is_filled(const unsigned char *from, size_t count, unsigned seed) {
    for (size_t i = 0; i < count; i++)
        if (from[i] != (unsigned char)(seed + i * 7)) return 0;
    return 1;
}

static void ranges(size_t size) {
    unsigned char *object = malloc(size), *copy = malloc(size);
    fill(object, size, 1);
    size_t from = size / 3, to = size - size / 4;
    expect("poison", size, fencepost_poison(object + from, to - from), 1);
    BAD(object, size);
    BAD(object + from, 1);
    BAD(object + to - 1, 1);
    BAD(object, from + 1);
    FINE(object, from);
    FINE(object + to, size - to);
    expect("beyond", size, fencepost_check_range(object + to, size), FENCEPOST_OVERFLOW);
    expect("before", size, fencepost_check_range(object - 1, 1), FENCEPOST_UNDERFLOW);
    /* What lies on either side is the program's. */
    memcpy(copy, object, from);
    memcpy(object + to, copy, size - to < from ? size - to : from);
    fill(object + to, size - to, 2);
    expect("left", size, is_filled(object, from, 1), 1);
    /* Again, over it, and in part. */
    expect("again", size, fencepost_poison(object + from, to - from), 1);
    expect("over it", size, fencepost_poison(object + from / 2, to - from), 1);
    BAD(object + from / 2, 1);
    FINE(object, from / 2);
    expect("a part", size, fencepost_unpoison(object + from, 3), 1);
    FINE(object + from, 3);
    BAD(object + from - 1, 1);
    BAD(object + from + 3, 1);
    fill(object + from, 3, 9);
    expect("the part", size, is_filled(object + from, 3, 9), 1);
    expect("nothing", size, fencepost_poison(object + size, 0), 1);
    expect("nothing", size, fencepost_unpoison(object, 0), 1);
    FINE(object, 0);
    expect("what was not", size, fencepost_unpoison(object + to, size - to), 1);
    expect("right", size, is_filled(object + to, size - to, 2), 1);
    /* The object is what it is. */
    void *start;
    size_t found;
    expect("bounds", size, fencepost_bounds(object + from + 5, &start, &found) && start == object && found == size, 1);
    expect("size", size, malloc_usable_size(object), size);
    expect("errors", size, fencepost_check(), 0);
    expect("all", size, fencepost_unpoison(object, size), 1);
    FINE(object, size);
    fill(object, size, 3);
    expect("contents", size, is_filled(object, size, 3), 1);
    free(copy);
    /* A resize ends it, wherever the object goes; a free as well. */
    for (int step = 0; step < 4; step++) {
        size_t next[] = {size + 1, size * 3, size / 2 + 1, size};
        size_t least = next[step] < size ? next[step] : size;
        fill(object, size, 4);
        expect("poison", size, fencepost_poison(object + least / 2, size - least / 2), 1);
        object = realloc(object, next[step]);
        size = next[step];
        FINE(object, size);
        expect("kept", size, is_filled(object, least / 2, 4), 1);
        fill(object, size, 5);
        expect("written", size, is_filled(object, size, 5), 1);
    }
    expect("poison", size, fencepost_poison(object, size), 1);
    free(object);
    for (int i = 0; i < (size < 20000 ? 200 : 4); i++) {
        unsigned char *next = i % 2 ? malloc(size) : calloc(1, size);
        FINE(next, size);
        fill(next, size, 6);
        if (i % 3 == 0) fencepost_poison(next + size / 2, size - size / 2);
        free(next);
    }
}

static int semantics(void) {
    static const size_t sizes[] = {24, 100, 1000, 4000, 4096, 8192, 10000, 100000, 300000, 3000000};
    static char outside[100];
    char inside[100];
    void *null = 0;
    size_t size = 0;
    expect("static memory", 0, fencepost_poison(outside, 100), 0);
    expect("the stack", 0, fencepost_poison(inside, 100), 0);
    expect("null", 0, fencepost_poison(null, 8), 0);
    expect("nowhere", 0, fencepost_poison((void *)-9, 8), 0);
    expect("nothing", 0, fencepost_poison(null, 0), 1);
    expect("static memory", 0, fencepost_unpoison(outside, 100), 0);
    FINE(outside, 100);
    FINE(inside, 100);
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect("a mapping", 0, fencepost_poison(page, 4096), 0);
    page[0] = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) ranges(sizes[i]);
    /* Many objects at once, one byte of each. */
    enum { MANY = 2000 };
    static char *many[MANY];
    for (int i = 0; i < MANY; i++) {
        many[i] = malloc(16 + i % 200);
        fencepost_poison(many[i] + i % 16, 1);
    }
    for (int i = 0; i < MANY; i++) {
        size = 16 + i % 200;
        BAD(many[i], 16);
        FINE(many[i], i % 16);
        if (i % 2) free(many[i]);
    }
    expect("errors", 0, fencepost_check(), 0);
    for (int i = 0; i < MANY; i += 2) free(many[i]);
    return wrong;
}

/* A pool of blocks of which several share a page, each somebody's. */
enum { BLOCK = 700, WORKERS = 4, EACH = 40, ROUNDS = 400 };
static unsigned char *pool;
static volatile sig_atomic_t stop;

/* The block of a number of somebody. */
static unsigned char *block(int who, int number) { return pool + (size_t)(number * (WORKERS + 1) + who) * BLOCK; }

static void use(int who, unsigned *random, int rounds) {
    for (int i = 0; i < rounds; i++) {
        *random = *random * 1103515245 + 12345;
        int number = (int)(*random >> 16) % EACH;
        unsigned char *mine = block(who, number);
        fencepost_unpoison(mine, BLOCK);
        fill(mine, BLOCK, *random);
        /* The neighbours come and go meanwhile. */
        if (!is_filled(mine, BLOCK, *random) || fencepost_check_range(mine, BLOCK)) wrong = 1;
        fencepost_poison(mine, BLOCK);
    }
}

static void on_alarm(int number) {
    static unsigned random = 77;
    (void)number;
    use(WORKERS, &random, 5);
}

static void *work(void *who) {
    unsigned random = (unsigned)(long)who + 1;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    /* One thread alone has the handler's blocks: all begin with the signal blocked. */
    if (!(long)who) pthread_sigmask(SIG_UNBLOCK, &set, 0);
    use((int)(long)who, &random, ROUNDS);
    return 0;
}

static int storm(void) {
    pool = malloc((size_t)BLOCK * EACH * (WORKERS + 1));
    fencepost_poison(pool, (size_t)BLOCK * EACH * (WORKERS + 1));
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaction(SIGALRM, &action, 0);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    pthread_t threads[WORKERS];
    for (long i = 0; i < WORKERS; i++) pthread_create(&threads[i], 0, work, (void *)i);
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (!child) {
            unsigned random = (unsigned)i;
            unsigned char *other = malloc(30000);
            fencepost_poison(other, 30000);
            fencepost_unpoison(other, 30000);
            fill(other, 30000, 1);
            free(other);
            /* The last one's blocks are the child's as nobody else has the pool there. */
            use(WORKERS, &random, 20);
            _exit(wrong);
        }
        int status;
        waitpid(child, &status, 0);
        if (status) {
            printf("child: %x\n", status);
            wrong = 1;
        }
    }
    for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], 0);
    setitimer(ITIMER_REAL, &never, 0);
    fencepost_unpoison(pool, (size_t)BLOCK * EACH * (WORKERS + 1));
    fill(pool, (size_t)BLOCK * EACH * (WORKERS + 1), 5);
    free(pool);
    return wrong;
}

static int limit(void) {
    size_t size = 1 << 20;
    unsigned char *object = malloc(size), *small = malloc(500);
    fencepost_poison(object + 4096, 8192);
    fencepost_poison(small + 100, 100);
    struct rlimit limit = {512 << 20, 512 << 20};
    expect("the limit", 0, setrlimit(RLIMIT_AS, &limit), 0);
    void *mapped = mmap(0, 200 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    expect("a mapping", 0, mapped != MAP_FAILED, 1);
    BAD(object, size);
    BAD(small, 500);
    FINE(small, 100);
    fencepost_unpoison(object, size);
    FINE(object, size);
    fill(object, size, 3);
    free(object);
    free(small);
    for (int i = 0; i < 1000; i++) {
        unsigned char *next = malloc(100 + i);
        /* It may have no room for the table. */
        if (fencepost_poison(next, 10)) BAD(next, 1);
        free(next);
    }
    return wrong;
}

static char *volatile barred;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    char *page = (char *)((size_t)info->si_addr & -4096UL);
    if (page != barred || mprotect(page, 4096, PROT_READ | PROT_WRITE)) _exit(9);
    barred = 0;
}

int main(int count, char **arguments) {
    const char *how = count > 1 ? arguments[1] : "";
    if (!strcmp(how, "semantics") || !strcmp(how, "storm") || !strcmp(how, "limit")) {
        int status = how[1] == 'e' ? semantics() : how[0] == 's' ? storm() : limit();
        if (!status) puts("ok");
        return status;
    }
    if (!strcmp(how, "store") || !strcmp(how, "load")) {
        char *object = malloc(40000);
        fencepost_poison(object + 100, 19900);
        volatile int *at = (int *)(object + 9000);
        if (how[0] == 's') *at = 1;
        else (void)*at;
        (void)*at;
        fencepost_unpoison(object, 40000);
        memset(object, 1, 40000);
        puts("on");
        return 0;
    }
    if (!strcmp(how, "barrier")) {
        char *object = aligned_alloc(4096, 40960);
        fencepost_poison(object, 100);
        fencepost_poison(object + 8192, 8192);
        struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
        sigaction(SIGSEGV, &action, 0);
        barred = object;
        mprotect(barred, 4096, PROT_NONE);
        ((volatile char *)object)[200] = 1;
        puts(barred ? "missed" : "ok");
        return 0;
    }
    char *object = malloc(1000), *start = object;
    size_t size = 100;
    if (!strcmp(how, "freed")) free(object), start += 10;
    if (!strcmp(how, "over")) start += 950;
    if (!strcmp(how, "behind")) start += 1000;
    int (*call)(const void *, size_t) = arguments[2][0] == 'p' ? fencepost_poison : fencepost_unpoison;
    printf("%d\n", call(start, size));
    return 0;
}
