/* Bug: writes past an object of 4,096 bytes where there is little stack. Arguments: alternate, coroutine or thread, and
 * the bytes of that stack. */
#include "program.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

static char *p;

static void write_past(void) { write_byte(p + 4096); }

static void *run(void *unused) {
    (void)unused;
    write_past();
    return NULL;
}

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 2);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = object(4096);
    HIDE(p);
    if (strcmp(argv[1], "alternate") == 0) {
        stack_t stack = {.ss_sp = memory, .ss_size = size};
        EXPECT(sigaltstack(&stack, NULL) == 0);
        write_past();
    } else if (strcmp(argv[1], "coroutine") == 0) {
        static ucontext_t here, there;
        getcontext(&there);
        there.uc_stack.ss_sp = memory;
        there.uc_stack.ss_size = size;
        there.uc_link = &here;
        makecontext(&there, write_past, 0);
        swapcontext(&here, &there);
    } else {
        /* Never allocates. */
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        EXPECT(pthread_attr_setstacksize(&attributes, size) == 0);
        EXPECT(pthread_create(&thread, &attributes, run, NULL) == 0);
        pthread_join(thread, NULL);
    }
    return 0;
}
