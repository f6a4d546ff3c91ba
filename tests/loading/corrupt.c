/* Correct: asks for the file argv[2], a copy of the library argv[1] with bytes that are not its own or without its end, to be
 * opened with RTLD_DEEPBIND if it is loaded, which it is not. Nothing is left open. */
#include "../preload/programs/program.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

static unsigned long state = 42;

static size_t below(size_t limit) {
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    return (state >> 33) % limit;
}

static int next_descriptor(void) {
    int fd = open("/dev/null", O_RDONLY);
    EXPECT(fd >= 0 && close(fd) == 0);
    return fd;
}

int main(int argc, char **argv) {
    (void)argc;
    static unsigned char bytes[1 << 16], copy[1 << 16];
    int fd = open(argv[1], O_RDONLY);
    ssize_t size = read(fd, bytes, sizeof bytes);
    EXPECT(size > 1000 && close(fd) == 0);
    int first = next_descriptor();
    for (int round = 0; round < 3000; round++) {
        memcpy(copy, bytes, size);
        /* Mostly where headers and tables are. */
        size_t reach = round % 3 == 0 ? 512 : round % 3 == 1 ? 4096 : (size_t)size;
        if (reach > (size_t)size) reach = size;
        for (size_t i = 0, count = 1 + below(8); i < count; i++) {
            size_t at = 16 + below(reach - 16);
            copy[at] = below(4) ? below(256) : below(2) ? 0xff : 0;
        }
        size_t length = below(4) ? (size_t)size : below(size);
        fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        EXPECT(fd >= 0 && write(fd, copy, length) == (ssize_t)length && close(fd) == 0);
        EXPECT(dlopen(argv[2], RTLD_LAZY | RTLD_NOLOAD | RTLD_DEEPBIND) == NULL);
    }
    EXPECT(next_descriptor() == first);
    puts("done");
    return 0;
}
