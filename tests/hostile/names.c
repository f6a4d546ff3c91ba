/* Correct ISO C: has functions of its own whose names the C library has beyond the standard, as it may, and calls none.
 * None of them does what the C library's does; whoever calls one is counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 400 };

static int calls;

#define OWN(name) int name(void) { calls++; return 42; }
OWN(mmap) OWN(munmap) OWN(mprotect) OWN(mremap) OWN(madvise) OWN(msync) OWN(munlock) OWN(process_vm_readv)
OWN(getpid) OWN(gettid) OWN(syscall) OWN(sysinfo) OWN(getrlimit) OWN(clock_gettime) OWN(setsockopt)
OWN(open) OWN(read) OWN(write) OWN(close) OWN(fstat) OWN(send) OWN(recv)
OWN(sigaction) OWN(sigprocmask) OWN(sigaltstack)
char **environ;

int main(void) {
    static char *objects[MANY];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            objects[i] = malloc(i * i + 1);
            if (!objects[i]) return 1;
            memset(objects[i], i, i * i + 1);
        }
        for (int i = 0; i < MANY; i++) {
            objects[i] = realloc(objects[i], 2 * i * i + 1);
            if (!objects[i] || objects[i][i * i] != (char)i) return 2;
        }
        for (int i = 0; i < MANY; i++) free(objects[i]);
    }
    printf(calls ? "%d calls\n" : "done\n", calls);
    return 0;
}
