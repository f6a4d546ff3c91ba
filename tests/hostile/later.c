/* Gives advice up when it has started, as the rules of confine.h in its arguments say, uses objects of before and after, and
 * then writes one byte behind an object of 4096 bytes. */
#include "confine.h"

enum { MANY = 300 };

int main(int argc, char **argv) {
    char *objects[MANY];
    for (size_t i = 0; i < MANY; i++) objects[i] = object(i * 41 + 1);
    for (int i = 1; i < argc; i++) confine(argv[i]);
    for (size_t i = 0; i < MANY; i += 2) free(objects[i]);
    for (size_t i = 0; i < MANY; i += 2) memset(objects[i] = malloc(4096 + i), 'n', 4096 + i);
    for (size_t i = 0; i < MANY; i++) free(objects[i]);
    char *last = malloc(4096);
    memset(last, 'l', 4096);
    HIDE(last);
    last[4096] = 1;
    puts("written");
    return 0;
}
