/* Finds the allocator's tables by its anchor and writes to one what is there already. Arguments: the table, and
 * from where: main, thread, handler; or only "own": a key of the program's own on memory of the heap. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const names[] = {"pages", "records", "states", "stacks"};
/* Words of the anchor behind its magic; of "states", where the first class says where its are. */
static const int words[] = {4, 6, 11, 13};
#define STATES_OF_CLASS 3

static uintptr_t *anchor(void) {
    char line[512];
    int ours = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end, inode;
        char rights[5];
        if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &start, &end, rights, &inode) != 4) continue;
        /* What is behind the library's data without a file is its data, too. */
        if (inode) ours = strstr(line, "libfencepost") != NULL;
        if (!ours || strcmp(rights, "rw-p")) continue;
        for (unsigned long at = start; at + 144 <= end; at += 64)
            if (!memcmp((void *)at, "fencepost anchor", 16) && ((uintptr_t *)at)[3] == at) {
                fclose(maps);
                return (uintptr_t *)at + 2;
            }
    }
    puts("no anchor");
    exit(2);
}

static volatile char *table;

static void *write_it(void *argument) {
    *table = *table;
    return argument;
}

static void on_signal(int number) { *table = *table; }

static void on_fault(int number, siginfo_t *info, void *context) {
    static const char line[] = "the program's own key\n";
    if (write(1, line, sizeof line - 1) < 0 || info->si_code != SEGV_PKUERR) _exit(3);
    _exit(0);
}

static int own_key(void) {
    int key = pkey_alloc(0, 0);
    char *object = malloc(100000), *page = object + (-(uintptr_t)object & 4095);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    if (key < 0 || pkey_mprotect(page, 4096, PROT_READ | PROT_WRITE, key)) return 4;
    *page = 1;
    pkey_set(key, PKEY_DISABLE_WRITE);
    *page = 2;
    return 5;
}

int main(int count, char **arguments) {
    if (count == 2) return own_key();
    char *large = malloc(100000), *small = malloc(100);
    memset(large, 1, 100000), memset(small, 1, 100);
    for (int i = 0; i < 4; i++)
        if (!strcmp(arguments[1], names[i])) table = (char *)anchor()[words[i]];
    if (!strcmp(arguments[1], "states")) table = ((char **)table)[STATES_OF_CLASS];
    /* Reading is allowed. */
    if (!table || *table == 1) return 2;
    if (!strcmp(arguments[2], "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, write_it, NULL);
        pthread_join(thread, NULL);
    } else if (!strcmp(arguments[2], "handler")) {
        signal(SIGUSR1, on_signal);
        raise(SIGUSR1);
    } else {
        write_it(NULL);
    }
    free(large), free(small);
    puts("written");
    return 0;
}
