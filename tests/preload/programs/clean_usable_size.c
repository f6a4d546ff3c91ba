/* Correct: writes every byte up to malloc_usable_size, for many sizes, with all objects live. */
#include "program.h"
#include <malloc.h>

enum { COUNT = 400 };

int main(void) {
    char *objects[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = i < 200 ? i : i * 37;
        objects[i] = malloc(size);
        HIDE(objects[i]);
        EXPECT(objects[i] != NULL && malloc_usable_size(objects[i]) >= size);
        memset(objects[i], (int)i, malloc_usable_size(objects[i]));
    }
    for (size_t i = 0; i < COUNT; i++) {
        size_t usable = malloc_usable_size(objects[i]);
        for (size_t at = 0; at < usable; at++) EXPECT((unsigned char)objects[i][at] == (unsigned char)i);
        if (i % 2) {
            objects[i] = realloc(objects[i], usable + 100);
            EXPECT(objects[i] != NULL);
            memset(objects[i], 0, malloc_usable_size(objects[i]));
        }
        release(objects[i]);
    }
    EXPECT(malloc_usable_size(NULL) == 0);
    return 0;
}
