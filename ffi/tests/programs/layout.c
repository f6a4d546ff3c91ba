/* What one layout of objects shows and another does not, and what none may show. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile char sink;

__attribute__((noinline)) static void underread(char *object) {
    sink = object[-1]; /* MARK underread */
}

__attribute__((noinline)) static void slack_read(char *object) {
    sink = object[13]; /* MARK slack */
}

/* Relies on the alignment of its objects, as it may: a flag in the lowest bit. */
__attribute__((noinline)) static long tagged(void) {
    long sum = 0;
    for (int i = 1; i < 40; i++) {
        char *object = malloc(i);
        memset(object, i, i);
        uintptr_t tag = (uintptr_t)object | 1;
        char *again = (char *)(tag & ~(uintptr_t)1);
        sum += again[0] + again[i - 1];
        free(again);
    }
    return sum;
}

struct record {
    int set, forgotten;
    char name[32];
};

__attribute__((noinline)) static struct record *make(void) {
    struct record *record = malloc(sizeof *record); /* MARK forgotten */
    record->set = 7;
    strcpy(record->name, "x");
    return record;
}

static int copy(void) {
    int c, count = 0;
    while ((c = getchar()) != EOF) {
        putchar(c);
        count++;
    }
    fprintf(stderr, "%d bytes\n", count);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "reads")) {
        char *one = malloc(48), *other = malloc(13);
        memset(one, 1, 48);
        memset(other, 2, 13);
        underread(one);
        slack_read(other);
        puts("done");
        free(one);
        free(other);
    } else if (!strcmp(what, "tagged")) {
        printf("%ld\n", tagged());
    } else if (!strcmp(what, "forgotten")) {
        for (int i = 0; i < 20; i++) {
            char *other = malloc(64 + i);
            memset(other, 1, 64 + i);
            free(other);
        }
        struct record *record = make();
        printf("%d %d\n", record->set, record->forgotten);
        free(record);
    } else if (!strcmp(what, "branch")) {
        struct record *record = make();
        int bad = record->forgotten != 0;
        free(record);
        return bad ? 3 : 0;
    } else if (!strcmp(what, "both")) {
        struct record *record = make();
        int *other = malloc(100);
        printf("%d\n", record->forgotten && other[3]);
        free(record);
        free(other);
    } else if (!strcmp(what, "cleared")) {
        struct record *record = calloc(4, sizeof *record);
        char *text = malloc(8);
        strcpy(text, "seven");
        text = realloc(text, 4000);
        printf("%d %d %s\n", record->set, record[3].forgotten, text);
        free(record);
        free(text);
    } else if (!strcmp(what, "place")) {
        char *object = malloc(100);
        printf("%d\n", (int)((uintptr_t)object & 4095));
        free(object);
    } else if (!strcmp(what, "pid")) {
        char *object = malloc(100);
        printf("%d\n", (int)getpid());
        free(object);
    } else if (!strcmp(what, "copy")) {
        return copy();
    } else if (!strcmp(what, "loop")) {
        for (;;) pause();
    } else if (!strcmp(what, "three")) {
        return 3;
    } else if (!strcmp(what, "term")) {
        raise(SIGTERM);
    }
    return 0;
}
