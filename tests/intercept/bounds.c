/* What the heap says of pointers. A line that is wrong says which. */
#include "../../ffi/include/fencepost.h"
#include "expect.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma weak fencepost_bounds
#pragma weak fencepost_check_range

static int is(const void *pointer, const void *start, size_t size) {
    void *found_start = 0;
    size_t found_size = 1;
    return fencepost_bounds(pointer, &found_start, &found_size) == 1 && found_start == start && found_size == size;
}

int main(void) {
    static const size_t sizes[] = {1, 8, 13, 16, 24, 100, 1000, 4000, 4096, 5000, 100000, 300000, 3000000};
    static char outside[100];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        char *object = malloc(size);
        expect("first byte", size, is(object, object, size), 1);
        expect("last byte", size, is(object + size - 1, object, size), 1);
        expect("places for nothing", size, fencepost_bounds(object, 0, 0), 1);
        expect("before", size, is(object - 1, object, size), 0);
        expect("all", size, fencepost_check_range(object, size), FENCEPOST_FINE);
        expect("a part", size, fencepost_check_range(object + size / 2, size - size / 2), FENCEPOST_FINE);
        expect("nothing at the end", size, fencepost_check_range(object + size, 0), FENCEPOST_FINE);
        expect("one too many", size, fencepost_check_range(object, size + 1), FENCEPOST_OVERFLOW);
        expect("one behind", size, fencepost_check_range(object + size, 1), FENCEPOST_OVERFLOW);
        expect("all that there is", size, fencepost_check_range(object, (size_t)-1), FENCEPOST_OVERFLOW);
        expect("one before", size, fencepost_check_range(object - 1, 2), FENCEPOST_UNDERFLOW);
        object = realloc(object, size + 1);
        expect("grown", size, is(object + size, object, size + 1), 1);
        free(object);
        expect("freed", size, fencepost_bounds(object, 0, 0), 0);
        expect("freed", size, fencepost_check_range(object, 1), FENCEPOST_FREED);
    }
    void *nothing = malloc(0);
    expect("nothing", 0, is(nothing, nothing, 0), 1);
    expect("nothing", 0, fencepost_check_range(nothing, 0), FENCEPOST_FINE);
    expect("nothing", 0, fencepost_check_range(nothing, 1), FENCEPOST_OVERFLOW);
    expect("static memory", 0, fencepost_bounds(outside, 0, 0), 0);
    expect("static memory", 0, fencepost_check_range(outside, 1000), FENCEPOST_FINE);
    expect("the stack", 0, fencepost_check_range(&nothing, 1000), FENCEPOST_FINE);
    expect("null", 0, fencepost_bounds(0, 0, 0), 0);
    expect("null", 0, fencepost_check_range(0, 1), FENCEPOST_FINE);
    expect("nowhere", 0, fencepost_check_range((void *)-1, 5), FENCEPOST_FINE);
    if (!wrong) puts("ok");
    return wrong;
}
