/* Correct programs' calls whose counts say more than is touched, and calls that fail: one line each, which must come out
 * the same with and without the library. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>

static void say(const char *what, long result) { printf("%s %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : ""); }

/* The bytes of an object as one number, so that nothing that was written beside it goes unseen. */
static unsigned sum(const void *object, size_t size) {
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) sum = sum * 31 + ((const unsigned char *)object)[i];
    return sum;
}

__attribute__((noinline, noclone)) static char *object(size_t size) {
    char *object = malloc(size);
    memset(object, 'x', size);
    return object;
}

static int file(const char *text) {
    int fd = memfd_create("correct", 0);
    if (write(fd, text, strlen(text)) < 0) abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static int pipe_of(const char *text) {
    int fds[2];
    if (pipe(fds) || write(fds[1], text, strlen(text)) < 0) abort();
    close(fds[1]);
    return fds[0];
}

static void calls(void) {
    char *p = object(100);
    volatile size_t huge = 4096;
    int fd = file("0123456789"), bad = -1;
    say("read a short file", read(fd, p, huge));
    say("read its end", read(fd, p, huge));
    printf("%.10s %u\n", p, sum(p, 100));
    say("pread a short file", pread(fd, p, huge, 3));
    say("pread64 behind its end", pread64(fd, p, huge, 30));
    int input = pipe_of("a line\n");
    say("read a pipe", read(input, p, huge));
    say("read its end", read(input, p, huge));
    say("read nothing", read(fd, p, 0));
    say("read a bad descriptor", read(bad, p, huge));
    say("read a directory", read(open("/", O_RDONLY), p, huge));
    say("read a file that is only written", read(open("/dev/null", O_WRONLY), p, huge));
    say("read into nowhere", read(pipe_of("abc"), (void *)8, 10));
    say("write from nowhere", write(fd, (void *)8, 10));
    say("write to a bad descriptor", write(bad, p, huge));
    say("write to a file that is only read", write(open("/dev/zero", O_RDONLY), p, huge));
    errno = 0;
    int full[2];
    if (pipe2(full, O_NONBLOCK)) abort();
    char *block = object(1 << 16);
    say("fill a pipe", write(full[1], block, 1 << 16));
    say("write to a full pipe", write(full[1], p, huge));
    say("read an empty pipe", (read(full[0], block, 1 << 16), read(full[0], p, huge)));
    struct iovec parts[3] = {{p, 10}, {p + 10, 5}, {p + 15, 4000}};
    lseek(fd, 0, SEEK_SET);
    say("readv", readv(fd, parts, 3));
    say("preadv", preadv(fd, parts, 3, 2));
    say("readv with too many parts", readv(fd, parts, 5000));
    say("readv with a bad count", readv(fd, parts, -1));
    say("writev to a bad descriptor", writev(bad, parts, 3));
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair)) abort();
    say("send", send(pair[1], "datagram", 8, 0));
    say("peek", recv(pair[0], p, huge, MSG_PEEK));
    say("recv", recv(pair[0], p, huge, 0));
    say("send", send(pair[1], block, 200, 0));
    say("recv a part and tell the whole", recv(pair[0], p, 100, MSG_TRUNC));
    say("send", send(pair[1], "more", 4, 0));
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    say("recvfrom", recvfrom(pair[0], p, huge, 0, (void *)&from, &size));
    say("its sender's size", size);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    say("send", send(pair[1], "a message", 9, 0));
    say("recvmsg", recvmsg(pair[0], &message, 0));
    say("its flags", message.msg_flags);
    say("recv with nothing there", recv(pair[0], p, huge, MSG_DONTWAIT));
    say("send too much", send(pair[1], p, huge, MSG_DONTWAIT | MSG_OOB));
    char small[8], *link = object(32);
    snprintf(small, sizeof small, "x");
    say("chdir", chdir("/usr"));
    say("getcwd", (long)strlen(getcwd(link, huge)));
    say("getcwd too short", (long)getcwd(link, 2) - 1);
    say("readlink", readlink("/proc/self/exe", object(PATH_MAX), PATH_MAX) > 0);
    unlink("/tmp/correct-link");
    if (symlink("short", "/tmp/correct-link")) abort();
    say("readlink of a short one", readlink("/tmp/correct-link", link, huge));
    say("readlink of no link", readlink("/", link, huge));
    say("readlink of nothing", readlink("/nothing", link, huge));
    unlink("/tmp/correct-link");
    say("getrandom with bad flags", getrandom(p, huge, 12345));
    int socket_fd = socket(AF_INET, SOCK_STREAM, 0), *value = malloc(sizeof *value);
    socklen_t len = 256;
    say("getsockopt", getsockopt(socket_fd, SOL_SOCKET, SO_TYPE, value, &len));
    printf("%d %u\n", *value, len);
    say("getsockopt of a bad descriptor", getsockopt(bad, SOL_SOCKET, SO_TYPE, value, &len));
    say("getsockopt of a bad option", getsockopt(socket_fd, SOL_SOCKET, 9999, value, &len));
    /* Pages of an object that the program closed itself. */
    char *pages = aligned_alloc(4096, 8192);
    mprotect(pages + 4096, 4096, PROT_NONE);
    say("read to a closed page", read(file("0123456789"), pages + 4096, 10));
    say("write from a closed page", write(fd, pages + 4096, 10));
    mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE);
}

static void streams(void) {
    char *p = object(100);
    volatile size_t huge = 4096;
    FILE *stream = fdopen(file("first\nsecond line\nthird without an end"), "r+");
    say("fgets", strlen(fgets(p, huge, stream)));
    say("fgets", strlen(fgets(p, huge, stream)));
    say("fgets", strlen(fgets(p, huge, stream)));
    say("eof", feof(stream) != 0);
    say("fgets", fgets(p, huge, stream) != 0);
    printf("%u\n", sum(p, 100));
    rewind(stream);
    say("fread", fread(p, 1, huge, stream));
    say("eof", feof(stream) != 0);
    rewind(stream);
    say("fread of eights", fread(p, 8, huge, stream));
    say("eof", feof(stream) != 0);
    printf("%u\n", sum(p, 100));
    rewind(stream);
    char *line = malloc(10);
    size_t size = 10;
    for (long got; (got = getline(&line, &size, stream)) >= 0;) say(line, got);
    rewind(stream);
    say("getdelim", getdelim(&line, &size, 'd', stream));
    FILE *read_only = fopen("/dev/zero", "r");
    say("fwrite to what is only read", fwrite(p, 1, huge, read_only));
    say("fread of zeros", fread(p, 1, 100, read_only));
    say("fgets of one", fgets(p, 1, read_only) == p);
    say("fgets of none", fgets(p, 0, read_only) == 0);
}

static int list(char *to, size_t most, const char *format, ...) {
    va_list one, two;
    va_start(one, format);
    va_copy(two, one);
    int result = vsnprintf(to, most, format, one) * 1000;
    result += vsnprintf(to, most, format, two);
    va_end(one);
    va_end(two);
    return result;
}

static void texts(void) {
    volatile size_t huge = SIZE_MAX / 2;
    char *p = object(16), *q = object(16);
    p[15] = q[15] = 0;
    say("memchr", (char *)memchr(p, 'x', huge) - p);
    p[7] = 'y';
    say("memchr", (char *)memchr(p, 'y', huge) - p);
    say("memchr", (char *)memchr(p, 0, huge) - p);
    say("strnlen", strnlen(p, huge));
    say("strncmp", strncmp(p, q, huge) > 0);
    say("strncmp", strncmp(p, p, huge));
    q[7] = 'y';
    say("strncmp", strncmp(p, q, huge));
    q[0] = 'a';
    say("memcmp", memcmp(q, p, 4096) < 0);
    say("strcmp", strcmp(q, p) < 0);
    say("strchr", strchr(p, 'y') - p);
    memset(q, 'z', 16);
    say("strchr in what has no end", strchr(q, 'z') - q);
    say("strcmp with what has no end", strcmp(q, p) > 0);
    say("strncat", strlen(strncat(strcpy(p, "ab"), "cdefgh", huge)));
    say("strndup", strlen(strndup(p, huge)));
    say("strncpy", sum(strncpy(p, "abc", 16), 16));
    say("snprintf", snprintf(p, huge, "%s %d", "text", 7));
    say("snprintf that fits", snprintf(p, 4096, "%s", "123456789012345"));
    say("snprintf that is cut", snprintf(p, 16, "%s", "12345678901234567890"));
    say("snprintf to nowhere", snprintf(NULL, 0, "%d", 1234));
    p = object(64);
    say("sprintf", sprintf(p, "%d %.3f %c %s %ld %x %g %g", 1, 2.5, 'c', "s", 3L, 4, 5.0, 6.0));
    say(p, 0);
    char *wide_room = object(300);
    say("sprintf of many", sprintf(wide_room, "%d %d %d %d %d %d %d %d %f %f %f %f %f %f %f %f %f %f %Lf", 1, 2, 3, 4, 5, 6, 7, 8, 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.L));
    say(wide_room, 0);
    int written = 0;
    say("sprintf with a count", sprintf(p, "abc%n", &written) + written * 100);
    say("two lists", list(p, 4096, "%s %d %.2f", "l", 5, 1.25));
    wchar_t *w = malloc(4 * sizeof *w);
    wcscpy(w, L"abc");
    say("wcsnlen", wcsnlen(w, huge / 8));
    say("wmemchr", wmemchr(w, L'b', huge / 8) - w);
    say("wcsncmp", wcsncmp(w, L"abcd", 4) < 0);
    /* Areas that overlap, as older programs' memcpy was used. */
    memmove(wide_room + 3, wide_room, 200);
    say("memmove", sum(wide_room, 300));
    memcpy(p, p, 0);
    memcpy(p + 16, p + 16, 0);
    memset(p + 16, 1, 0);
    errno = ERANGE;
    memcpy(p, q, 16);
    strnlen(p, 16);
    say("errno stays", errno == ERANGE);
}

static void *reader(void *fd) {
    char *p = object(100);
    volatile size_t huge = 4096;
    pthread_cleanup_push(free, p);
    read(*(int *)fd, p, huge);
    pthread_cleanup_pop(1);
    return NULL;
}

static volatile sig_atomic_t caught;
static void on_signal(int number) { caught = number; }

static void threads(void) {
    int fds[2];
    if (pipe(fds)) abort();
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, reader, &fds[0]);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    say("a read is cancelled", result == PTHREAD_CANCELED);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGALRM, &action, NULL);
    char *p = object(100);
    volatile size_t huge = 4096;
    alarm(1);
    say("a read is interrupted", read(fds[0], p, huge));
    say("by a signal", caught == SIGALRM);
    pid_t child = vfork();
    if (child == 0) {
        memcpy(p, "child", 6);
        _exit(write(fds[1], p, 6) != 6);
    }
    int status;
    waitpid(child, &status, 0);
    say("a child of vfork", status);
    say("wrote", read(fds[0], p, huge));
    child = fork();
    if (child == 0) _exit(write(fds[1], strcpy(p, "fork"), 5) != 5);
    waitpid(child, &status, 0);
    say("a child of fork", status);
    say("wrote", read(fds[0], p, huge));
}

int main(void) {
    calls();
    streams();
    texts();
    threads();
    return 0;
}
