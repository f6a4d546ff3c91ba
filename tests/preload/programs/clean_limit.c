/* Correct: runs itself again under a limit of 512 MiB of address space, where 200 MiB of objects, a mapping
 * of 64 MiB and a thread still fit and 1 GiB does not. */
#include "program.h"
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MIB = 1 << 20, LARGE = 20, SMALL = 10000 };

static void *use(void *p) {
    release(p);
    return object(100);
}

int main(int argc, char **argv) {
    if (argc == 1) {
        struct rlimit limit = {512 * MIB, 512 * MIB};
        EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
        execl("/proc/self/exe", argv[0], "limited", (char *)NULL);
        return 2;
    }
    static char *large[LARGE], *small[SMALL];
    for (int i = 0; i < LARGE; i++) {
        large[i] = malloc(10 * MIB);
        HIDE(large[i]);
        EXPECT(large[i] != NULL);
        memset(large[i], 1, MIB);
    }
    for (int i = 0; i < SMALL; i++) small[i] = object(64);
    void *map = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(map != MAP_FAILED);
    errno = 0;
    char *p = malloc((size_t)1024 * MIB);
    HIDE(p);
    EXPECT(p == NULL && errno == ENOMEM);
    pthread_t thread;
    void *result = NULL;
    EXPECT(pthread_create(&thread, NULL, use, small[0]) == 0 && pthread_join(thread, &result) == 0);
    release(result);
    for (int i = 1; i < SMALL; i++) release(small[i]);
    for (int i = 0; i < LARGE; i++) release(large[i]);
    return 0;
}
