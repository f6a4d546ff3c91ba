/* Correct: allocates on a stack of its own making. It is a part of a thread's stack, ends at a page that is not mapped, and its last
 * frame's caller would lie there. A stack trace must not read so far. */
#include "confine.h"
#include <pthread.h>
#include <setjmp.h>

enum { ROOM = 256 << 10, PAGE = 4096 };

static jmp_buf back;
static void *caller, *volatile kept;

/* Called for the first time to learn where it returns to: that is what lies at the end of the other stack. */
__attribute__((noinline, noclone)) static void leaf(void) {
    if (caller == NULL) {
        caller = __builtin_return_address(0);
        return;
    }
    kept = object(5000);
    release(kept);
    _longjmp(back, 1);
}

__attribute__((noinline, noclone)) static int middle(int n) {
    leaf();
    return n + 1;
}

__attribute__((noinline, noclone)) static void *below(void *unused) {
    char room[ROOM];
    HIDE(unused);
    char *hole = (char *)(((uintptr_t)room + ROOM / 2) & -(uintptr_t)PAGE);
    (void)middle(1);
    ((void **)hole)[-1] = caller;
    EXPECT(munmap(hole, PAGE) == 0);
    if (_setjmp(back) == 0) {
        void *top = hole - sizeof(void *);
        /* Frames are found by either register. */
        __asm__ volatile("mov %0, %%rsp\n mov %0, %%rbp\n jmp *%1" : : "a"(top), "d"((void *)leaf) : "memory");
        __builtin_unreachable();
    }
    EXPECT(mmap(hole, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == hole);
    return unused;
}

static void *thread(void *unused) {
    /* What a thread's first object takes is mapped before there is a hole to lie in. */
    release(object(5000));
    return below(unused);
}

int main(void) {
    pthread_t other;
    EXPECT(pthread_create(&other, NULL, thread, NULL) == 0 && pthread_join(other, NULL) == 0);
    puts("done");
    return 0;
}
