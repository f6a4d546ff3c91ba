/* Bug: writes byte 8 of 400 freed objects of argv[1] bytes, then has as many zeroed ones. Whatever becomes of the bug,
 * calloc's memory is zero. */
#include "program.h"

enum { COUNT = 400 };

int main(int argc, char **argv) {
    (void)argc;
    size_t size = number(argv, 1);
    static char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) objects[i] = object(size);
    for (int i = 0; i < COUNT; i++) release(objects[i]);
    for (int i = 0; i < COUNT; i++) write_byte(objects[i] + 8);
    for (int i = 0; i < COUNT; i++) {
        char *zeroed = calloc(1, size);
        HIDE(zeroed);
        EXPECT(zeroed != NULL);
        for (size_t k = 0; k < size; k++) EXPECT(zeroed[k] == 0);
    }
    return 0;
}
