/* confine RULE... -- PROGRAM ARGUMENT...: the program with the rules of confine.h in force. */
#include "confine.h"

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            execv(argv[i + 1], argv + i + 1);
            return 2;
        }
        confine(argv[i]);
    }
    return 2;
}
