/* Correct: limits its own address space when it runs, then goes on allocating within it. */
#include "program.h"
#include <sys/resource.h>

int main(void) {
    struct rlimit limit = {512 << 20, 512 << 20};
    EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
    static char *objects[3000];
    for (size_t i = 0; i < 3000; i++) objects[i] = object(1 + i * 7 % 9000);
    for (size_t i = 0; i < 3000; i++) release(objects[i]);
    return 0;
}
