/* Correct: keeps more objects of 40 and of 4,000 bytes than mappings are said to be allowed (a file in place of the kernel's), and
 * prints how many mappings there are. */
#include "confine.h"

enum { SMALL = 5000, LARGE = 20000 };

int main(void) {
    for (int i = 0; i < SMALL; i++) memset(object(40), 's', 40);
    for (int i = 0; i < LARGE; i++) memset(object(4000), 'l', 4000);
    FILE *maps = fopen("/proc/self/maps", "r");
    EXPECT(maps != NULL);
    int lines = 0;
    for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
    printf("%d\n", lines);
    return 0;
}
