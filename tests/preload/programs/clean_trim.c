/* Correct: allocates and frees much, trims, and finds its memory given back; figures asked for meanwhile. */
#include "program.h"
#include <malloc.h>
#include <unistd.h>

static long resident_pages(void) {
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    EXPECT(file != NULL && fscanf(file, "%ld %ld", &size, &resident) == 2 && fclose(file) == 0);
    return resident;
}

int main(void) {
    enum { OBJECTS = 20000, SIZE = 1000 };
    static char *objects[OBJECTS];
    /* glibc keeps what lies below an object in use. */
    for (int i = 0; i < OBJECTS; i++) objects[i] = object(SIZE);
    long full = resident_pages();
    struct mallinfo2 used = mallinfo2();
    EXPECT(used.uordblks + used.hblkhd >= (size_t)OBJECTS * SIZE);
    for (int i = 0; i < OBJECTS; i++) release(objects[i]);
    int trimmed = malloc_trim(0);
    EXPECT(trimmed == 0 || trimmed == 1);
    EXPECT(full - resident_pages() > (long)OBJECTS * SIZE / 4096 / 2);
    EXPECT(malloc_trim(0) == 0 || trimmed == 1);
    struct mallinfo2 left = mallinfo2();
    EXPECT(left.uordblks + left.hblkhd < (size_t)OBJECTS * SIZE / 4);
    EXPECT(mallopt(M_MMAP_MAX, 0) == 1);
    release(object(100));
    return 0;
}
