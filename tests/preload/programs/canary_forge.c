/* Bug: reads the word behind an object of 24 bytes, makes of it what the word behind an object of 120 bytes would be if
 * words were related by rule argv[1], and writes over the end of that object with it. */
#include "program.h"

enum { COUNT = 400, SIZE = 120, SLOT = 128 };

static uint64_t turn(uint64_t word, unsigned bits) { return bits == 0 ? word : word << bits | word >> (64 - bits); }

/* The bits that a canary word leaves open, and those that it sets, as any leaked word shows. */
static uint64_t formed(uint64_t word) {
    return (word & 0xbfbfbfbfbfbf00bfull) | 0x8181818181810081ull;
}

static uint64_t related(int rule, uint64_t word, uint64_t from, uint64_t to) {
    switch (rule) {
    case 0: return word;
    case 1: return formed(word + (to - from));
    case 2: return formed(word - from + to);
    case 3: return formed((word - from * 0x9e3779b97f4a7c15ull) + to * 0x9e3779b97f4a7c15ull);
    default: return formed(word ^ turn(from, rule - 4) ^ turn(to, rule - 4));
    }
}

int main(int argc, char **argv) {
    (void)argc;
    char *known = object(24);
    uint64_t word;
    memcpy(&word, known + 24, sizeof word);
    HIDE(known);
    char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) objects[i] = object(SIZE);
    for (int i = 0; i < COUNT; i++)
        for (int k = 0; k < COUNT; k++)
            if (objects[k] == objects[i] + SLOT) {
                uint64_t forged = related((int)number(argv, 1), word, (uintptr_t)known + 32, (uintptr_t)objects[k]);
                HIDE(objects[i]);
                memcpy(objects[i] + SIZE, &forged, sizeof forged);
                release(objects[i]);
                release(objects[k]);
                return 0;
            }
    return 3;
}
