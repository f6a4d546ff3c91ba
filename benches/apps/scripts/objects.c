/* Many live small objects: a hash table of strings, filled, changed and emptied. Prints a checksum. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    char *name;
    unsigned long value;
};

static unsigned long state = 20051020;

static unsigned roll(unsigned n) {
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    return (unsigned)(state >> 33) % n;
}

static char *name_of(unsigned long number) {
    char buffer[64];
    int length = snprintf(buffer, sizeof buffer, "entry-%lu-%.*s", number, (int)(number % 40), "................................................");
    char *name = malloc((size_t)length + 1);
    if (name == NULL)
        abort();
    return memcpy(name, buffer, (size_t)length + 1);
}

int main(int argc, char **argv) {
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    size_t buckets = 1 << 14;
    struct entry **table = calloc(buckets, sizeof *table);
    unsigned long sum = 0;
    if (table == NULL)
        abort();
    for (unsigned long i = 0; i < 3 * count; i++) {
        struct entry **slot = &table[roll((unsigned)buckets)];
        if (i >= count && *slot != NULL) {
            struct entry *old = *slot;
            *slot = old->next;
            sum += old->value + strlen(old->name);
            free(old->name);
            free(old);
        }
        struct entry *fresh = malloc(sizeof *fresh);
        if (fresh == NULL)
            abort();
        *fresh = (struct entry){*slot, name_of(i), i};
        *slot = fresh;
    }
    for (size_t i = 0; i < buckets; i++)
        while (table[i] != NULL) {
            struct entry *old = table[i];
            table[i] = old->next;
            sum += old->value ^ (unsigned char)old->name[7];
            free(old->name);
            free(old);
        }
    free(table);
    printf("%lu\n", sum);
    return 0;
}
