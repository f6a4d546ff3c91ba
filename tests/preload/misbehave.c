/* A library that spoils what it is preloaded into, in the way that FENCEPOST_OPTIONS starts with: it
 * proves that the survival script sees a report, a silent death and another output. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(int file, const char *text) {
    if (write(file, text, strlen(text)) < 0) _exit(9);
}

__attribute__((constructor)) static void misbehave(void) {
    const char *how = getenv("FENCEPOST_OPTIONS");
    if (how == NULL) return;
    if (strncmp(how, "report", 6) == 0) say(2, "==1==ERROR: fencepost: double-free on address 0x000000000010 at pc 0x0\n");
    if (strncmp(how, "die", 3) == 0) raise(SIGSEGV);
    if (strncmp(how, "print", 5) == 0) say(1, "another line\n");
}
