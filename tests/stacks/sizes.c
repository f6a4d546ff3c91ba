/* One bad access a run, of a known size. */
#include "../preload/programs/program.h"
#include <emmintrin.h>

int main(int count, char **arguments) {
    (void)count;
    const char *name = arguments[1];
    char *kept = malloc(64), *after = kept + 64;
    HIDE(after);
    volatile int8_t *p1 = (void *)after;
    volatile int16_t *p2 = (void *)after;
    volatile int32_t *p4 = (void *)after;
    volatile int64_t *p8 = (void *)after;
    if (strcmp(name, "read1") == 0) return *p1;
    if (strcmp(name, "read8") == 0) return (int)*p8;
    if (strcmp(name, "write2") == 0) *p2 = 1;
    if (strcmp(name, "write4") == 0) *p4 = 1;
    if (strcmp(name, "add4") == 0) __asm__ volatile("addl $1, %0" : "+m"(*p4));
    if (strcmp(name, "vector") == 0) _mm_storeu_si128((__m128i *)after, _mm_set1_epi8(1));
    char room[64];
    char *from = after, *to = room;
    size_t times = 4;
    if (strcmp(name, "movs") == 0)
        __asm__ volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(times) : : "memory");
    if (strcmp(name, "stos") == 0)
        __asm__ volatile("rep stosl" : "+D"(from), "+c"(times) : "a"(1) : "memory");
    if (strcmp(name, "across") == 0) {
        volatile int64_t *across = (void *)(after - 4);
        return (int)*across;
    }
    return 1;
}
