/* One call of one function of the C library with a pointer into the heap that does not suffice.
 *
 *   rows --list            a line for each row: number, function, access, access where the pointer is wrong from the start
 *   rows ROW over          the object ends before what the call touches
 *   rows ROW under         the pointer is one byte before the object
 *   rows ROW freed         the object is freed
 *   rows ROW poisoned      the object is larger, and poisoned from its hundredth byte on
 *   rows ROW fits          all is well: prints "ok"
 *
 * A row's call touches `n` bytes from `p` on. Where it reads a string, there is no end in the object. */
#define _GNU_SOURCE
#include "../../ffi/include/fencepost.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <wchar.h>

#pragma weak fencepost_poison

enum { SIZE = 100, OVER = 128 };

/* What other arguments are: bytes, a string of n - 1 bytes, the same of wide characters. */
static char bytes[8192], text[8192];
static wchar_t wide[2048], wtext[2048];
static volatile size_t n;
static char *p;
/* Whether the pointer is an object's. */
static int is_good;
static int fd, pair[2], tcp;
static FILE *stream;
static volatile long sink;
#define W ((wchar_t *)p)
#define WN (n / sizeof(wchar_t))

/* A file of random bytes without an end of a line, at its start. */
static void open_file(void) {
    fd = memfd_create("rows", 0);
    for (int i = 0; i < 2; i++)
        if (write(fd, bytes, sizeof bytes) != sizeof bytes) abort();
    lseek(fd, 0, SEEK_SET);
    stream = fdopen(fd, "r+");
}

static void open_pair(void) {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
    if (write(pair[1], bytes, 4096) != 4096) abort();
}

static void empty(void) {
    if (is_good) memset(p, 0, sizeof(wchar_t));
}

static int call_vsprintf(char *to, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int result = vsprintf(to, format, list);
    va_end(list);
    return result;
}

static int call_vsnprintf(char *to, size_t most, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int result = vsnprintf(to, most, format, list);
    va_end(list);
    return result;
}

static struct iovec *parts(void) {
    static struct iovec parts[2];
    parts[0] = (struct iovec){bytes + 4096, 16};
    parts[1] = (struct iovec){p, n};
    return parts;
}

static struct msghdr *message(void) {
    static struct msghdr message;
    message.msg_iov = parts();
    message.msg_iovlen = 2;
    return &message;
}

/* A directory and a link whose names are as long as the call's room. */
static void enter_directory(void) {
    char name[64], path[] = "/tmp/rowsXXXXXX";
    memset(name, 'd', 60);
    name[60] = 0;
    if (!mkdtemp(path) || chdir(path)) abort();
    for (int i = 0; i < 2; i++)
        if (mkdir(name, 0700) || chdir(name)) abort();
}

static const char *link_name(void) {
    static char name[] = "/tmp/linkXXXXXX";
    close(mkstemp(name));
    unlink(name);
    text[n] = 0;
    if (symlink(text, name)) abort();
    return name;
}

static void leave(const char *name) { unlink(name); }

/* A line of n - 1 bytes. */
static void open_line(void) {
    open_file();
    if (pwrite(fd, "\n", 1, n - 2) != 1) abort();
}

static long call_getline(void) {
    char *line = p;
    size_t size = 4096;
    open_line();
    return getline(&line, &size, stream);
}

static long call_getdelim(void) {
    char *line = p;
    size_t size = 4096;
    open_line();
    return getdelim(&line, &size, '\n', stream);
}

static long call_sendmsg(void) {
    struct msghdr *whole = message();
    whole->msg_iov++;
    whole->msg_iovlen = 1;
    return sendmsg(pair[0], whole, 0);
}

struct row {
    const char *name;
    /* What the access is: where the object is too small, and where the pointer is wrong from the start. */
    char over, wrong;
    void (*call)(void);
};

#define ROW(name, over, wrong, ...) static void do_##name(void) { __VA_ARGS__; }
/* To the object, and from it. */
#define COPY(name, object, other, count)                                                                            \
    R(name, W, W, name(object, other, count))                                                                       \
    R(name##_from, R, R, name(other, object, count))
#define ROWS                                                                                                        \
    COPY(memcpy, p, bytes, n)                                                                                       \
    COPY(memmove, p, bytes, n)                                                                                      \
    COPY(mempcpy, p, bytes, n)                                                                                      \
    R(memset, W, W, memset(p, 1, n))                                                                                \
    R(bcopy, W, W, bcopy(bytes, p, n))                                                                              \
    R(bcopy_from, R, R, bcopy(p, bytes, n))                                                                         \
    R(bzero, W, W, bzero(p, n))                                                                                     \
    R(explicit_bzero, W, W, explicit_bzero(p, n))                                                                   \
    COPY(wmemcpy, W, wide, WN)                                                                                      \
    COPY(wmemmove, W, wide, WN)                                                                                     \
    COPY(wmempcpy, W, wide, WN)                                                                                     \
    R(wmemset, W, W, wmemset(W, L'a', WN))                                                                          \
    R(memcmp, R, R, sink = memcmp(p, text, n))                                                                      \
    R(memcmp_second, R, R, sink = memcmp(text, p, n))                                                               \
    R(bcmp, R, R, sink = bcmp(p, text, n))                                                                          \
    R(bcmp_second, R, R, sink = bcmp(text, p, n))                                                                   \
    R(memchr, R, R, sink = memchr(p, 'z', n) != 0)                                                                  \
    R(strlen, R, R, sink = strlen(p))                                                                               \
    R(strnlen, R, R, sink = strnlen(p, n))                                                                          \
    R(strcpy, W, W, strcpy(p, text))                                                                                \
    R(strcpy_from, R, R, strcpy(bytes, p))                                                                          \
    R(stpcpy, W, W, stpcpy(p, text))                                                                                \
    R(stpcpy_from, R, R, stpcpy(bytes, p))                                                                          \
    R(strncpy, W, W, strncpy(p, text, n))                                                                           \
    R(strncpy_from, R, R, strncpy(bytes, p, n))                                                                     \
    R(stpncpy, W, W, stpncpy(p, text, n))                                                                           \
    R(stpncpy_from, R, R, stpncpy(bytes, p, n))                                                                     \
    R(strcat, W, R, empty(); strcat(p, text))                                                                      \
    R(strcat_from, R, R, bytes[0] = 0; strcat(bytes, p))                                                            \
    R(strncat, W, R, empty(); strncat(p, text, n))                                                                 \
    R(strncat_from, R, R, bytes[0] = 0; strncat(bytes, p, n))                                                       \
    R(strcmp, R, R, sink = strcmp(p, text))                                                                         \
    R(strcmp_second, R, R, sink = strcmp(text, p))                                                                  \
    R(strncmp, R, R, sink = strncmp(p, text, n))                                                                    \
    R(strncmp_second, R, R, sink = strncmp(text, p, n))                                                             \
    R(strchr, R, R, sink = strchr(p, 'z') != 0)                                                                     \
    R(index, R, R, sink = index(p, 'z') != 0)                                                                       \
    R(strrchr, R, R, sink = strrchr(p, 'z') != 0)                                                                   \
    R(strdup, R, R, sink = strdup(p) != 0)                                                                          \
    R(strndup, R, R, sink = strndup(p, n) != 0)                                                                     \
    R(wmemcmp, R, R, sink = wmemcmp(W, wtext, WN))                                                                  \
    R(wmemcmp_second, R, R, sink = wmemcmp(wtext, W, WN))                                                           \
    R(wmemchr, R, R, sink = wmemchr(W, L'z', WN) != 0)                                                              \
    R(wcslen, R, R, sink = wcslen(W))                                                                               \
    R(wcsnlen, R, R, sink = wcsnlen(W, WN))                                                                         \
    R(wcscpy, W, W, wcscpy(W, wtext))                                                                               \
    R(wcscpy_from, R, R, wcscpy(wide, W))                                                                           \
    R(wcpcpy, W, W, wcpcpy(W, wtext))                                                                               \
    R(wcpcpy_from, R, R, wcpcpy(wide, W))                                                                           \
    R(wcsncpy, W, W, wcsncpy(W, wtext, WN))                                                                         \
    R(wcsncpy_from, R, R, wcsncpy(wide, W, WN))                                                                     \
    R(wcscat, W, R, empty(); wcscat(W, wtext))                                                                     \
    R(wcscat_from, R, R, wide[0] = 0; wcscat(wide, W))                                                              \
    R(wcsncat, W, R, empty(); wcsncat(W, wtext, WN))                                                               \
    R(wcsncat_from, R, R, wide[0] = 0; wcsncat(wide, W, WN))                                                        \
    R(wcscmp, R, R, sink = wcscmp(W, wtext))                                                                        \
    R(wcscmp_second, R, R, sink = wcscmp(wtext, W))                                                                 \
    R(wcsncmp, R, R, sink = wcsncmp(W, wtext, WN))                                                                  \
    R(wcsncmp_second, R, R, sink = wcsncmp(wtext, W, WN))                                                           \
    R(wcschr, R, R, sink = wcschr(W, L'z') != 0)                                                                    \
    R(wcsrchr, R, R, sink = wcsrchr(W, L'z') != 0)                                                                  \
    R(wcsdup, R, R, sink = wcsdup(W) != 0)                                                                          \
    R(sprintf, W, W, sprintf(p, "%c%s", 'a', text + 1))                                                             \
    R(snprintf, W, W, snprintf(p, 4096, "%c%s", 'a', text + 1))                                                     \
    R(vsprintf, W, W, call_vsprintf(p, "%c%s", 'a', text + 1))                                                      \
    R(vsnprintf, W, W, call_vsnprintf(p, 4096, "%c%s", 'a', text + 1))                                              \
    R(read, W, W, open_file(); sink = read(fd, p, n))                                                               \
    R(pread, W, W, open_file(); sink = pread(fd, p, n, 7))                                                          \
    R(pread64, W, W, open_file(); sink = pread64(fd, p, n, 7))                                                      \
    R(readv, W, W, open_file(); sink = readv(fd, parts(), 2))                                                       \
    R(preadv, W, W, open_file(); sink = preadv(fd, parts(), 2, 7))                                                  \
    R(preadv64, W, W, open_file(); sink = preadv64(fd, parts(), 2, 7))                                              \
    R(recv, W, W, open_pair(); sink = recv(pair[0], p, n, 0))                                                       \
    R(recvfrom, W, W, open_pair(); sink = recvfrom(pair[0], p, n, 0, 0, 0))                                         \
    R(recvmsg, W, W, open_pair(); sink = recvmsg(pair[0], message(), 0))                                            \
    R(write, R, R, open_file(); sink = write(fd, p, n))                                                             \
    R(pwrite, R, R, open_file(); sink = pwrite(fd, p, n, 7))                                                        \
    R(pwrite64, R, R, open_file(); sink = pwrite64(fd, p, n, 7))                                                    \
    R(writev, R, R, open_file(); sink = writev(fd, parts() + 1, 1))                                                 \
    R(pwritev, R, R, open_file(); sink = pwritev(fd, parts() + 1, 1, 7))                                            \
    R(pwritev64, R, R, open_file(); sink = pwritev64(fd, parts() + 1, 1, 7))                                        \
    R(send, R, R, open_pair(); sink = send(pair[0], p, n, 0))                                                       \
    R(sendto, R, R, open_pair(); sink = sendto(pair[0], p, n, 0, 0, 0))                                             \
    R(sendmsg, R, R, open_pair(); sink = call_sendmsg())                                                              \
    R(getcwd, W, W, enter_directory(); sink = getcwd(p, 4096) != 0)                                                 \
    R(readlink, W, W, const char *name = link_name(); sink = readlink(name, p, 4096); leave(name))                  \
    R(readlinkat, W, W, const char *name = link_name(); sink = readlinkat(AT_FDCWD, name, p, 4096); leave(name))    \
    R(getrandom, W, W, sink = getrandom(p, n, 0))                                                                   \
    R(getsockopt, W, W, tcp = socket(AF_INET, SOCK_STREAM, 0); socklen_t len = 256;                                 \
      sink = getsockopt(tcp, IPPROTO_TCP, TCP_INFO, p, &len))                                                       \
    R(fread, W, W, open_file(); sink = fread(p, 1, n, stream))                                                      \
    R(fread_unlocked, W, W, open_file(); sink = fread_unlocked(p, 2, n / 2, stream))                                \
    R(fwrite, R, R, open_file(); sink = fwrite(p, 1, n, stream))                                                    \
    R(fwrite_unlocked, R, R, open_file(); sink = fwrite_unlocked(p, n, 1, stream))                                  \
    R(fgets, W, W, open_file(); sink = fgets(p, n, stream) != 0)                                                    \
    R(fgets_unlocked, W, W, open_file(); sink = fgets_unlocked(p, n, stream) != 0)                                  \
    R(getline, W, W, sink = call_getline())                                                                         \
    R(getdelim, W, W, sink = call_getdelim())

#define R ROW
ROWS
#undef R
#define R(name, over, wrong, ...) {#name, #over[0], #wrong[0], do_##name},
static const struct row rows[] = {ROWS};

int main(int count, char **arguments) {
    size_t all = sizeof rows / sizeof *rows;
    if (count == 2) {
        for (size_t row = 0; row < all; row++) {
            char name[64];
            strcpy(name, rows[row].name);
            if (!strstr(name, "_unlocked") && !strstr(name, "_bzero") && strchr(name, '_')) *strchr(name, '_') = 0;
            printf("%zu %s %c %c\n", row, name, rows[row].over, rows[row].wrong);
        }
        return 0;
    }
    const char *how = arguments[2];
    int fits = !strcmp(how, "fits");
    n = OVER;
    int poisoned = !strcmp(how, "poisoned");
    char *object = malloc(fits || poisoned ? 4096 : SIZE);
    memset(bytes, 'a', sizeof bytes);
    memset(object, 'a', fits ? 4096 : SIZE);
    memset(text, 'a', n - 1);
    for (size_t i = 0; i < WN; i++) ((wchar_t *)object)[i < SIZE / 4 ? i : 0] = L'a';
    memset(object, 'a', SIZE);
    for (size_t i = 0; i < WN - 1; i++) wtext[i] = 0x61616161;
    if (fits) object[n - 1] = 0, memset(object + n - 1, 0, 8);
    p = object;
    if (!strcmp(how, "under")) p--;
    if (!strcmp(how, "freed")) free(object);
    if (poisoned && !fencepost_poison(object + SIZE, 4096 - SIZE)) abort();
    is_good = fits || poisoned || !strcmp(how, "over");
    rows[atoi(arguments[1])].call();
    puts("ok");
    return 0;
}
