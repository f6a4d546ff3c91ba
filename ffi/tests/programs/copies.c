/* Accesses of the C library's to guard pages. Each is made by a child of its own, and said on stdout before.
   copies: by the functions that are told a length, at either side, of many lengths: what is accessed, how much, by which
   function, from where on. strings: by those whose way depends on the data: the function alone. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OBJECT = 8192 };
static const size_t sizes[] = {1,    2,    3,    7,    8,    9,     15,    16,    17,    31,     32,      33,
                               63,   64,   65,   100,  127,  128,   129,   200,   255,   256,    257,     300,
                               511,  513,  767,  1000, 1025, 2047,  2049,  3000,  4096,  4097,   6001,    8191,
                               8193, 9001, 16385, 70001, 1000001, 5000003, 40000007};
static const size_t most = 64 << 20;

static void say(const char *access, size_t size, const char *function, const void *start) {
    printf("%s of size %zu by %s() at 0x%012zx\n", access, size, function, (size_t)(uintptr_t)start);
    fflush(stdout);
}

static void copy(const char *function, const char *access, char *to, const char *from, size_t size) {
    int writes = *access == 'W';
    say(access, size, function, writes ? to : from);
    pid_t child = fork();
    if (child == 0) {
        if (!strcmp(function, "memcpy")) {
            memcpy(to, from, size);
        } else if (!strcmp(function, "memmove")) {
            memmove(to, from, size);
        } else {
            memset(to, 7, size);
        }
        _exit(3);
    }
    waitpid(child, NULL, 0);
}

static void copies(void) {
    char *big = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    static const char *const functions[] = {"memcpy", "memmove", "memset"};
    for (size_t at = 0; at < sizeof(sizes) / sizeof(*sizes); at++) {
        size_t size = sizes[at];
        size_t inside = size / 2 < OBJECT ? size / 2 : OBJECT;
        for (int which = 0; which < 3; which++) {
            const char *function = functions[which];
            char *object = malloc(OBJECT);
            /* Past the end, which is at the guard. */
            copy(function, "WRITE", object + OBJECT - inside, big + 3, size);
            if (which < 2) {
                copy(function, "READ", big + 5, object + OBJECT - inside, size);
            }
            free(object);
            if (size > OBJECT) {
                continue;
            }
            /* Where nothing may be accessed any more. */
            copy(function, "WRITE", object + OBJECT - size, big + 3, size);
            if (which < 2) {
                copy(function, "READ", big + 5, object, size);
            }
        }
        if (size > 2 && size <= OBJECT / 2) {
            /* Source and destination have bytes in common. */
            char *object = malloc(OBJECT);
            copy("memmove", "WRITE", object + OBJECT - inside, object + OBJECT - size, size);
            free(object);
        }
    }
}

/* A child does what follows. */
static int child_of(const char *function) {
    printf("%s\n", function);
    fflush(stdout);
    pid_t child = fork();
    if (child != 0) {
        waitpid(child, NULL, 0);
    }
    return child == 0;
}

#define TRY(function, call) \
    if (child_of(function)) { \
        volatile size_t result = (size_t)(call); \
        (void)result; \
        _exit(3); \
    }

static void strings(void) {
    /* Without an end, and one that is not there any more. */
    char *open = malloc(OBJECT), *gone = malloc(OBJECT);
    char *other = malloc(2 * OBJECT);
    memset(open, 'x', OBJECT);
    memset(other, 'x', 2 * OBJECT - 1);
    other[2 * OBJECT - 1] = 0;
    free(gone);
    TRY("strlen", strlen(open));
    TRY("strlen", strlen(gone));
    TRY("strnlen", strnlen(open, 2 * OBJECT));
    TRY("strcpy", strcpy(open, other));
    TRY("strcpy", strcpy(other, gone));
    TRY("strcat", strcat(other, gone));
    TRY("strncpy", strncpy(open + 8, other, 2 * OBJECT));
    TRY("strcmp", strcmp(open, other));
    TRY("strncmp", strncmp(open, other, 2 * OBJECT));
    TRY("memcmp", memcmp(open, other, 2 * OBJECT));
    TRY("memchr", memchr(open, 'y', 2 * OBJECT));
    TRY("memrchr", (size_t)memrchr(gone, 'y', OBJECT));
    TRY("strchr", strchr(open, 'y'));
    TRY("strrchr", strrchr(gone, 'y'));
    TRY("strstr", strstr(gone, "yy"));
    TRY("strdup", strdup(gone));
    TRY("puts", puts(gone));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "strings")) {
        strings();
    } else {
        copies();
    }
    return 0;
}
