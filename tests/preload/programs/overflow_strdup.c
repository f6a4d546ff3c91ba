/* Bug: appends a character to a copy that strdup made, behind its NUL. */
#include "program.h"

int main(void) {
    char *copy = strdup("twelve chars");
    HIDE(copy);
    size_t length = strlen(copy);
    copy[length] = 's';
    write_byte(copy + length + 1);
    release(copy);
    return 0;
}
