/* Bug: writes through a null pointer. It is none of the heap's, so the program ends as it would without
 * a hardened heap. The report of it goes where nobody looks. */
#include "program.h"
#include <fcntl.h>
#include <unistd.h>

int main(void) {
    release(object(64));
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
    char *p = NULL;
    HIDE(p);
    write_byte(p);
    return 0;
}
