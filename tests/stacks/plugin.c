/* A library in two builds that differ in the size of a frame. */
#include <stdlib.h>
__attribute__((noinline, noclone)) char *plugged(size_t size) {
    volatile char room[ROOM];
    room[0] = 1;
    char *made = malloc(size);
    room[ROOM - 1] = 1;
    return made;
}
