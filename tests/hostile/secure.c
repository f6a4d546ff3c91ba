/* Correct, but for its third argument: a program that runs with the rights of another user (setuid). */
#include "../preload/programs/program.h"
#include <sys/auxv.h>
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argv;
    if (!getauxval(AT_SECURE) || geteuid() != 0 || getuid() == 0) return NOT_PERMITTED;
    char *p = object(16);
    if (argc > 1) write_byte(p + 16);
    release(p);
    puts("done");
    return 0;
}
