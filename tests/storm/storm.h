/* What the storms share. Nothing here allocates but what is called so. */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#ifdef __cplusplus
#include <atomic>
using std::atomic_int;
using std::atomic_long;
#else
#include <stdatomic.h>
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds after which a child that hangs is ended by SIGALRM. */
#define CHILD_SECONDS 20

static void write_line(const char *format, va_list list) {
    char line[256];
    int length = vsnprintf(line, sizeof line, format, list);
    if (write(1, line, length < 256 ? length : 255) < 0) _exit(2);
}

/* Says a line and fails, from wherever it is. */
static void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    write_line(format, list);
    va_end(list);
    _exit(1);
}

static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    write_line(format, list);
    va_end(list);
}

static uint32_t draw(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 16);
}

/* Mostly small, now and then past a page, rarely past what shards hold. */
static size_t draw_size(uint64_t *state) {
    uint32_t kind = draw(state) % 64;
    return 1 + draw(state) % (kind == 0 ? 300000 : kind < 6 ? 20000 : 900);
}

/* An object: its size, and the same byte all over. */
struct parcel {
    unsigned char *bytes;
    size_t size;
    unsigned char byte;
};

static void make(struct parcel *parcel, uint64_t *state) {
    parcel->size = draw_size(state);
    parcel->byte = (unsigned char)draw(state);
    parcel->bytes = (unsigned char *)(draw(state) % 8 ? malloc(parcel->size) : calloc(parcel->size, 1));
    if (!parcel->bytes) fail("no memory for %zu bytes\n", parcel->size);
    memset(parcel->bytes, parcel->byte, parcel->size);
}

static void check(const struct parcel *parcel) {
    if (parcel->bytes[0] != parcel->byte || parcel->bytes[parcel->size / 2] != parcel->byte
        || parcel->bytes[parcel->size - 1] != parcel->byte)
        fail("contents changed\n");
}

static void resize(struct parcel *parcel, uint64_t *state) {
    size_t size = draw_size(state);
    check(parcel);
    unsigned char *bytes = (unsigned char *)realloc(parcel->bytes, size);
    if (!bytes) fail("no memory for %zu bytes\n", size);
    parcel->bytes = bytes;
    parcel->size = size < parcel->size ? size : parcel->size;
    check(parcel);
    parcel->size = size;
    memset(bytes, parcel->byte, size);
}

static void drop(struct parcel *parcel) {
    if (!parcel->bytes) return;
    check(parcel);
    free(parcel->bytes);
    parcel->bytes = NULL;
}

/* Something happens to one of `count` parcels. */
static void act(struct parcel *parcels, unsigned count, uint64_t *state) {
    struct parcel *parcel = &parcels[draw(state) % count];
    if (!parcel->bytes) make(parcel, state);
    else if (draw(state) % 4 == 0) resize(parcel, state);
    else drop(parcel);
}

/* Waits for a child that has to end well. */
static void expect(pid_t child, const char *what, long number) {
    int status = 0;
    if (child < 0) fail("%s %ld: %s\n", what, number, strerror(errno));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) fail("%s %ld: waitpid: %s\n", what, number, strerror(errno));
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) fail("%s %ld: the child hangs\n", what, number);
    if (status) fail("%s %ld: the child's status is %x\n", what, number, status);
}

/* Resident memory in KiB. */
static long resident(void) {
    char text[128] = {0};
    int fd = open("/proc/self/statm", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) return 0;
    close(fd);
    char *rest = strchr(text, ' ');
    return rest ? atol(rest) * (sysconf(_SC_PAGESIZE) / 1024) : 0;
}
