/* Correct, but for the argument `overflow`: a program that runs with the rights of another user (setuid), unless `plain` stands behind it. */
#include "../preload/programs/program.h"
#include <sys/auxv.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int plain = argc > 2 && strcmp(argv[2], "plain") == 0;
    if (!plain && (!getauxval(AT_SECURE) || geteuid() != 0 || getuid() == 0)) return NOT_PERMITTED;
    char *p = object(16);
    if (argc > 1) write_byte(p + 16);
    release(p);
    puts("done");
    return 0;
}
