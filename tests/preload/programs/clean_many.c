/* Correct: 40,000 objects of all small sizes live at once, freed in another order. */
#include "program.h"

enum { COUNT = 40000, STEP = 7919 };

int main(void) {
    static char *objects[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = 1 + i % 777;
        objects[i] = malloc(size);
        HIDE(objects[i]);
        EXPECT(objects[i] != NULL);
        objects[i][0] = objects[i][size - 1] = (char)i;
    }
    for (size_t i = 0, at = 0; i < COUNT; i++, at = (at + STEP) % COUNT) {
        EXPECT(objects[at][0] == (char)at && objects[at][at % 777] == (char)at);
        release(objects[at]);
    }
    return 0;
}
