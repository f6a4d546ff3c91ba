/* Bug, in a process without a standard error: its own file gets that number, then an object is freed twice. */
#include "../preload/programs/program.h"
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    if (write(2, "", 0) != 0 && open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600) != 2) return 3;
    dprintf(2, "mine\n");
    char *p = object(100);
    release(p);
    release(p);
    return 0;
}
