/* Correct: a SIGSEGV handler of the program's own, on its own stack, recovers from null dereferences and
 * from writes to a page that mprotect closed. */
#include "program.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf back;
static void *volatile fault_address;

static void recover(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    fault_address = info->si_addr;
    siglongjmp(back, 1);
}

static volatile int faults;

int main(void) {
    stack_t stack = {.ss_sp = object(65536), .ss_size = 65536};
    EXPECT(sigaltstack(&stack, NULL) == 0);
    struct sigaction action = {.sa_sigaction = recover, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    char *closed = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(closed != MAP_FAILED);
    for (volatile int i = 0; i < 10; i++) {
        char *p = i % 2 ? closed : NULL;
        HIDE(p);
        if (sigsetjmp(back, 1) == 0)
            write_byte(p + i);
        else
            faults += fault_address == p + i;
        release(object(100));
    }
    EXPECT(faults == 10);
    return 0;
}
