/* Leaks, one of each kind: lost, lost with another, in a ring, held by a global, by the stack, by a register
 * of a thread that waits, by thread-local storage, by another object. */
#include "program.h"
#include <pthread.h>
#include <unistd.h>

struct node { struct node *next; char room[56]; };

static struct node *volatile kept;
static __thread struct node *volatile mine;
static int ready[2], never[2];

__attribute__((noinline)) static struct node *node(size_t size, struct node *next) {
    struct node *made = (struct node *)object(size);
    made->next = next;
    HIDE(made);
    return made;
}

__attribute__((noinline)) static void lose(void) {
    node(1001, node(501, NULL));
    struct node *ring = node(2001, NULL);
    ring->next = node(2002, ring);
    HIDE(ring);
}

/* What the frames of `lose` left on the stack would look like pointers. */
__attribute__((noinline)) static void wipe(void) {
    char room[20000], *all = room;
    memset(room, 0, sizeof room);
    HIDE(all);
}

static void *wait_for_ever(void *unused) {
    (void)unused;
    mine = node(3001, NULL);
    /* Only a register that functions keep has it while the call waits. */
    register struct node *held __asm__("rbx") = node(3002, NULL);
    __asm__ volatile("" : "+r"(held));
    wipe();
    if (write(ready[1], "x", 1) != 1) return NULL;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(0L), "D"((long)never[0]), "S"(&result), "d"(1L) : "rcx", "r11", "memory");
    __asm__ volatile("" : : "r"(held));
    return held;
}

int main(int argc, char **argv) {
    lose();
    wipe();
    kept = node(4001, node(4002, NULL));
    struct node *local = node(5001, NULL);
    local->next = NULL;
    if (argc > 1) {
        char byte;
        pthread_t thread;
        EXPECT(pipe(ready) == 0 && pipe(never) == 0);
        EXPECT(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
        EXPECT(read(ready[0], &byte, 1) == 1);
        usleep(20000);
    }
    printf("end\n");
    exit(*(volatile char *)local->room == 'x');
}
