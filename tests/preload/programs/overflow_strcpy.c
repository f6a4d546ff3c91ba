/* Bug: copies a string of argv[1] characters into argv[1] bytes: no room for its NUL. */
#include "program.h"

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    char *text = object(size + 1), *copy = object(size);
    text[size] = '\0';
    HIDE(text);
    strcpy(copy, text);
    release(copy);
    release(text);
    return 0;
}
