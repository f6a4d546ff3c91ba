/* Techniques of heap attacks, from the view of one who writes next to an object, or holds a stale pointer.
 *
 *   attack TECHNIQUE TRIES      one line: tries, goals, goals that were never noticed, tries that were noticed
 *   attack list                 the techniques, with the goal of each
 *
 * Each try is a process of its own, forked from one that has not allocated what the technique needs. A goal is reached when the
 * attacker's bytes stand where a victim's pointer was, or two owners have the same memory. What is freed and checked at the end
 * may still notice it: then the process ends by a signal. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

enum { SIZE = 64, MANY = 512 };
static const uint64_t EVIL = 0x4141414141414141;

static volatile int *reached;
static void goal(void) { *reached = 1; }

static unsigned long seed = 88172645463325252;
static unsigned long draw(unsigned long below) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed % below;
}

/* A pointer that the compiler knows nothing of. */
static void *hidden(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* A victim: an object whose first word is a pointer that the program will call. */
static uint64_t *victim(size_t size) {
    uint64_t *object = malloc(size);
    object[0] = 0x1000;
    return object;
}

static int is_hit(uint64_t *object) { return *(volatile uint64_t *)object == EVIL; }

/* Bytes beyond an object of the attacker's are overwritten: `length` from the end on. */
static void overflow(size_t size, size_t length, int spray) {
    uint64_t *victims[MANY];
    for (int i = 0; i < spray / 2; i++) victims[i] = victim(size);
    char *mine = malloc(size);
    for (int i = spray / 2; i < spray; i++) victims[i] = victim(size);
    char *end = hidden(mine + size);
    for (size_t i = 0; i < length; i++) end[i] = 0x41;
    for (int i = 0; i < spray; i++) if (is_hit(victims[i])) goal();
    free(mine);
    for (int i = 0; i < spray; i++) free(victims[i]);
}

static void overflow_one_victim(void) { overflow(SIZE, SIZE + 32, 1); }
static void overflow_after_spray(void) { overflow(SIZE, SIZE + 32, MANY); }
static void overflow_by_a_word(void) { overflow(SIZE, 8, MANY); }
static void overflow_of_a_page(void) { overflow(5000, 4096, 16); }
/* Everything that can be reached: goes on until something stops it. */
static void overflow_without_end(void) { overflow(SIZE, 1 << 30, 16); }

static void underflow(void) {
    uint64_t *victims[MANY];
    for (int i = 0; i < MANY / 2; i++) victims[i] = victim(SIZE);
    char *mine = malloc(SIZE);
    for (int i = MANY / 2; i < MANY; i++) victims[i] = victim(SIZE);
    char *start = hidden(mine);
    for (size_t i = 1; i <= SIZE + 32; i++) start[-(long)i] = 0x41;
    for (int i = 0; i < MANY; i++) if (is_hit(victims[i])) goal();
    free(mine);
    for (int i = 0; i < MANY; i++) free(victims[i]);
}

/* The same with knowledge: the attacker read the words behind its own object before, and writes them again on the way. */
static void overflow_with_own_canary(void) {
    uint64_t *victims[MANY];
    for (int i = 0; i < MANY / 2; i++) victims[i] = victim(SIZE);
    char *mine = malloc(SIZE);
    for (int i = MANY / 2; i < MANY; i++) victims[i] = victim(SIZE);
    uint64_t *end = hidden(mine + SIZE);
    size_t slot = ((SIZE + 8 + 15) / 16 * 16) / 8;
    end[slot - SIZE / 8] = EVIL;
    for (int i = 0; i < MANY; i++) if (is_hit(victims[i])) goal();
    free(mine);
    for (int i = 0; i < MANY; i++) free(victims[i]);
}

/* The attacker read the canary of one of its objects and writes it behind another. */
static void overflow_with_a_leaked_canary(void) {
    char *one = malloc(SIZE), *mine = malloc(SIZE);
    uint64_t leaked = *(uint64_t *)hidden(one + SIZE);
    uint64_t *end = hidden(mine + SIZE);
    uint64_t before = *end;
    *end = leaked;
    /* To free it without notice is the goal. */
    free(mine);
    if (leaked != before) goal();
    free(one);
}

/* Two owners of one object, after so many frees and allocations in between. */
static void same(void *stale, int allocations, int frees, size_t size) {
    static void *got[1 << 16];
    for (int i = 0; i < allocations; i++) {
        got[i] = malloc(size);
        if (got[i] == stale) { goal(); break; }
        if (frees) free(got[i]);
    }
}

static void double_free_at_once(void) {
    void *p = malloc(SIZE);
    free(p), free(hidden(p));
    same(p, 1000, 0, SIZE);
}
static void double_free_with_one_between(void) {
    void *p = malloc(SIZE), *q = malloc(SIZE);
    free(p), free(q), free(hidden(p));
    same(p, 1000, 0, SIZE);
}
static void double_free_after_many(void) {
    void *p = malloc(SIZE), *other[200];
    for (int i = 0; i < 200; i++) other[i] = malloc(SIZE);
    free(p);
    for (int i = 0; i < 200; i++) free(other[i]);
    free(hidden(p));
    same(p, 1000, 0, SIZE);
}
/* The slot has a new owner when it is freed by the old pointer: nobody can tell. */
static void double_free_after_reuse(void) {
    static void *got[1 << 16];
    void *p = malloc(SIZE);
    free(p);
    for (int i = 0; i < 1 << 16; i++) {
        got[i] = malloc(SIZE);
        if (got[i] == p) { free(hidden(p)); goal(); break; }
        free(got[i]);
    }
}
static void double_free_of_large(void) {
    void *p = malloc(100000);
    free(p), free(hidden(p));
    same(p, 200, 0, 100000);
}
static void *free_it(void *p) { free(p); return NULL; }
static void double_free_by_threads(void) {
    pthread_t threads[2];
    void *p = malloc(SIZE);
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, free_it, hidden(p));
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    same(p, 20000, 1, SIZE);
}

/* A stale pointer, and allocations of the same size that are kept. */
static void reuse(int allocations, int frees, size_t size, size_t other) {
    void *p = malloc(size);
    memset(p, 1, size);
    free(p);
    same(p, allocations, frees, other);
}
static void reuse_next(void) { reuse(1, 0, SIZE, SIZE); }
static void reuse_in_100(void) { reuse(100, 0, SIZE, SIZE); }
static void reuse_in_1000_kept(void) { reuse(1000, 0, SIZE, SIZE); }
static void reuse_in_1000_freed(void) { reuse(1000, 1, SIZE, SIZE); }
static void reuse_in_10000_freed(void) { reuse(10000, 1, SIZE, SIZE); }
static void reuse_by_another_size(void) { reuse(10000, 1, SIZE, 4 * SIZE); }
static void reuse_of_1_kib(void) { reuse(1000, 1, 1000, 1000); }
static void reuse_of_large(void) { reuse(2000, 1, 100000, 100000); }
static void *allocate_many(void *p) { same(p, 1000, 1, SIZE); return NULL; }
static void reuse_by_a_thread(void) {
    pthread_t thread;
    void *p = malloc(SIZE);
    free(p);
    pthread_create(&thread, NULL, allocate_many, p);
    pthread_join(thread, NULL);
}

/* A write by a stale pointer, and what is allocated then. */
static void stale_write(void) {
    uint64_t *p = malloc(SIZE);
    free(p);
    *(volatile uint64_t *)hidden(p) = EVIL;
    for (int i = 0; i < 20000; i++) {
        uint64_t *q = malloc(SIZE);
        if (*(volatile uint64_t *)q == EVIL) { goal(); break; }
        free(q);
    }
}
static void stale_write_of_large(void) {
    uint64_t *p = malloc(100000);
    free(p);
    *(volatile uint64_t *)hidden(p) = EVIL;
    goal();
}

/* Objects that are none. */
static void fake(void *p, size_t size) {
    free(hidden(p));
    same(p, 1000, 0, size);
}
static uint64_t global[64] __attribute__((aligned(64)));
static void fake_in_globals(void) {
    global[7] = 0x51, global[17] = 0x51;
    fake(global + 8, SIZE);
}
static void fake_on_stack(void) {
    uint64_t there[64] __attribute__((aligned(64)));
    memset(there, 0x51, sizeof there);
    fake(there + 8, SIZE);
}
static void fake_inside_an_object(void) {
    uint64_t *p = malloc(480);
    for (int i = 0; i < 60; i++) p[i] = 0x51;
    fake(p + 8, SIZE);
}
static void fake_inside_a_large_object(void) {
    uint64_t *p = malloc(100000);
    memset(p, 0x51, 100000);
    fake(p + 512, SIZE);
}
static void fake_in_a_mapping(void) {
    char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(map, 0x51, 1 << 20);
    fake(map + 4096, SIZE);
}

/* Tricks with realloc. */
static void realloc_of_a_freed(void) {
    void *p = malloc(SIZE);
    free(p);
    void *q = realloc(hidden(p), 4 * SIZE);
    if (q) goal();
}
static void realloc_of_an_inner_pointer(void) {
    char *p = malloc(480);
    if (realloc(hidden(p + 64), 1000)) goal();
}
/* What a shrink gave up is written: the pointer behind is not the attacker's. */
static void realloc_shrinks(void) {
    char *p = malloc(250);
    uint64_t *victims[64];
    p = realloc(p, 100);
    for (int i = 0; i < 64; i++) victims[i] = victim(100);
    for (int i = 100; i < 250; i++) ((char *)hidden(p))[i] = 0x41;
    for (int i = 0; i < 64; i++) if (is_hit(victims[i])) goal();
    free(p);
    for (int i = 0; i < 64; i++) free(victims[i]);
}
static void realloc_moves(void) {
    char *p = malloc(100);
    char *q = realloc(p, 3000);
    if (q == p) return;
    *(volatile uint64_t *)hidden(p) = EVIL;
    same(p, 20000, 1, 100);
    free(q);
}

/* A pointer of the victim's in the heap, of which the attacker changes the lowest bytes: does it lead to an object of the
 * attacker's? `known` says that the attacker knows one address, and so by how much to change it. */
static void partial(int bytes, int objects, int known) {
    static char *mine[MANY];
    for (int i = 0; i < objects; i++) mine[i] = malloc(SIZE);
    char *theirs = malloc(SIZE);
    uintptr_t pointer = (uintptr_t)theirs, mask = (1ul << 8 * bytes) - 1;
    /* Of one address it knows how far its other objects are apart: slots are so many bytes long. */
    size_t slot = malloc_usable_size(theirs) + 16;
    unsigned long guess = known ? (uintptr_t)mine[0] + slot * draw(16) : draw(mask + 1);
    uintptr_t changed = (pointer & ~mask) | (guess & mask);
    for (int i = 0; i < objects; i++)
        if (changed == (uintptr_t)mine[i] && changed != pointer) goal();
}
static void partial_byte(void) { partial(1, MANY, 0); }
static void partial_two_bytes(void) { partial(2, MANY, 0); }
static void partial_two_bytes_one_object(void) { partial(2, 1, 0); }
static void partial_two_bytes_known(void) { partial(2, 1, 1); }

/* From one leaked address: where the next object of the same size will lie, and one of another size. */
static void guess_next(void) {
    char *leaked = malloc(SIZE), *next = malloc(SIZE);
    if (next == leaked + (long)(draw(2) ? 1 : -1) * 80 * (1 + (long)draw(71))) goal();
}
static void guess_other_size(void) {
    char *leaked = malloc(SIZE), *next = malloc(1000);
    if (next - leaked == (long)draw(1 << 20) * 16) goal();
}
static void guess_large(void) {
    char *leaked = malloc(8192), *next = malloc(8192);
    if (next == leaked + 4096 * (3 + (long)draw(8))) goal();
}

#define ROW(name, text) {#name, name, text}
static const struct { const char *name; void (*run)(void); const char *goal; } techniques[] = {
    ROW(overflow_one_victim, "an overflow reaches the one victim allocated next"),
    ROW(overflow_after_spray, "an overflow reaches one of 512 victims around it"),
    ROW(overflow_by_a_word, "the same with 8 bytes"),
    ROW(overflow_of_a_page, "an overflow by a page reaches one of 16 victims of 5,000 bytes"),
    ROW(overflow_without_end, "an overflow goes on until something stops it"),
    ROW(underflow, "an underflow reaches one of 512 victims"),
    ROW(overflow_with_own_canary, "an overflow that leaves the canary behind its own object as it is"),
    ROW(overflow_with_a_leaked_canary, "another object's canary, written behind one, is taken for its own"),
    ROW(double_free_at_once, "two owners after two frees"),
    ROW(double_free_with_one_between, "the same with another free between"),
    ROW(double_free_after_many, "the same with 200 others between"),
    ROW(double_free_after_reuse, "the second free comes when the slot has a new owner, within 65,536 allocations"),
    ROW(double_free_of_large, "two owners of 100,000 bytes"),
    ROW(double_free_by_threads, "two owners after two threads freed at once"),
    ROW(reuse_next, "the next allocation gets what was freed"),
    ROW(reuse_in_100, "one of the next 100 does"),
    ROW(reuse_in_1000_kept, "one of the next 1,000 does"),
    ROW(reuse_in_1000_freed, "one of 1,000 does that are freed at once"),
    ROW(reuse_in_10000_freed, "one of 10,000 does that are freed at once"),
    ROW(reuse_by_another_size, "one of 10,000 of another size does"),
    ROW(reuse_of_1_kib, "one of 1,000 of 1,000 bytes does"),
    ROW(reuse_of_large, "one of 2,000 of 100,000 bytes does"),
    ROW(reuse_by_a_thread, "one of another thread's 1,000 does"),
    ROW(stale_write, "what is written into freed memory reaches a new owner"),
    ROW(stale_write_of_large, "the same of 100,000 bytes"),
    ROW(fake_in_globals, "a fake object among globals is freed and allocated"),
    ROW(fake_on_stack, "the same on the stack"),
    ROW(fake_inside_an_object, "the same inside an object"),
    ROW(fake_inside_a_large_object, "the same inside one of 100,000 bytes"),
    ROW(fake_in_a_mapping, "the same in a mapping"),
    ROW(realloc_of_a_freed, "a freed object is resized"),
    ROW(realloc_of_an_inner_pointer, "an inner pointer is resized"),
    ROW(realloc_shrinks, "what a shrink gave up holds a victim"),
    ROW(realloc_moves, "what a resize left reaches a new owner"),
    ROW(partial_byte, "a pointer whose lowest byte is changed leads to one of the attacker's 512 objects"),
    ROW(partial_two_bytes, "the same with two bytes"),
    ROW(partial_two_bytes_one_object, "the same with one object of the attacker's"),
    ROW(partial_two_bytes_known, "the same, knowing that object's address"),
    ROW(guess_next, "from one leaked address, the next object's"),
    ROW(guess_other_size, "from one leaked address, that of an object of another size"),
    ROW(guess_large, "from one leaked address, the next guarded object's"),
};
enum { COUNT = sizeof techniques / sizeof *techniques };

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "list") == 0) {
        for (int i = 0; i < COUNT; i++) printf("%s: %s\n", techniques[i].name, techniques[i].goal);
        return 0;
    }
    if (count != 3) return 2;
    int which = 0, tries = atoi(arguments[2]), goals = 0, silent = 0, noticed = 0;
    while (which < COUNT && strcmp(techniques[which].name, arguments[1])) which++;
    if (which == COUNT) return 2;
    reached = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int nowhere = open("/dev/null", O_WRONLY);
    for (int i = 0; i < tries; i++) {
        *reached = 0;
        seed = seed * 6364136223846793005 + 1442695040888963407 + getpid();
        pid_t child = fork();
        if (child == 0) {
            dup2(nowhere, 2);
            techniques[which].run();
            exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) != child) return 3;
        goals += *reached;
        noticed += WIFSIGNALED(status);
        silent += *reached && !WIFSIGNALED(status);
    }
    printf("%d %d %d %d\n", tries, goals, silent, noticed);
    return 0;
}
