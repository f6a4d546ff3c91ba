/* What programs do when there is no memory: well, badly, and never at all. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node {
    struct node *next;
    char *name;
};

/* Says nothing to stdio, which allocates. */
static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(9);
}

static void release(struct node *node) {
    while (node) {
        struct node *next = node->next;
        free(node->name);
        free(node);
        node = next;
    }
}

__attribute__((noinline)) static struct node *careful(struct node *list) {
    struct node *node = malloc(sizeof *node);
    if (!node) return NULL;
    node->name = malloc(20);
    if (!node->name) {
        free(node);
        return NULL;
    }
    strcpy(node->name, "careful");
    node->next = list;
    return node;
}

__attribute__((noinline)) static struct node *careless(struct node *list) {
    struct node *node = malloc(sizeof *node);
    if (!node) return NULL;
    node->name = malloc(30); /* MARK unchecked */
    strcpy(node->name, "careless");
    node->next = list;
    return node;
}

__attribute__((noinline)) static struct node *twice(struct node *list) {
    struct node *node = malloc(sizeof *node);
    if (!node) return NULL;
    node->name = malloc(40); /* MARK twice */
    if (!node->name) {
        free(node);
        free(node);
        return NULL;
    }
    strcpy(node->name, "twice");
    node->next = list;
    return node;
}

__attribute__((noinline)) static struct node *patient(struct node *list) {
    struct node *node = malloc(sizeof *node); /* MARK hang */
    while (!node) pause();
    node->name = NULL;
    node->next = list;
    return node;
}

__attribute__((noinline)) static struct node *proud(struct node *list) {
    struct node *node = malloc(sizeof *node);
    if (!node) abort();
    node->name = NULL;
    node->next = list;
    return node;
}

/* Leaves something out and says nothing of it. */
__attribute__((noinline)) static struct node *silent(struct node *list) {
    struct node *node = careful(list);
    if (!node) {
        say("short\n");
        release(list);
        exit(0);
    }
    return node;
}

/* Every function of the family without memory: `fail_after=1:fail_every=1`. */
static int family(void) {
    char *object = malloc(10);
    void *aligned = &aligned;
    int wrong = !object;
#define NONE(number, call) \
    do { \
        errno = 0; \
        if ((call) != NULL || errno != ENOMEM) wrong |= 1 << (number); \
    } while (0)
    NONE(1, malloc(1));
    NONE(2, malloc(5000));
    NONE(3, malloc(10 << 20));
    NONE(4, calloc(3, 7));
    NONE(5, calloc(3, 70000));
    NONE(6, realloc(NULL, 17));
    NONE(7, aligned_alloc(64, 128));
    NONE(8, reallocarray(NULL, 3, 9));
    NONE(9, strdup("text"));
    NONE(10, valloc(3));
    NONE(11, malloc(0));
    strcpy(object, "still");
    NONE(12, realloc(object, 100));
    NONE(13, realloc(object, 1 << 20));
    if (strcmp(object, "still")) wrong |= 1 << 14;
    if (posix_memalign(&aligned, 32, 10) != ENOMEM || aligned != &aligned) wrong |= 1 << 15;
    /* What shrinks needs no memory. */
    char *shorter = realloc(object, 6);
    if (!shorter || strcmp(shorter, "still")) wrong |= 1 << 16;
    free(shorter);
    char text[40];
    snprintf(text, sizeof text, "wrong %x\n", wrong);
    say(text);
    return wrong != 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    struct node *(*grow)(struct node *) = careful;
    if (!strcmp(what, "family")) return family();
    if (!strcmp(what, "stubborn")) {
        for (int i = 1; i <= 40; i++) free(malloc(i));
        say("done\n");
        return 0;
    }
    if (!strcmp(what, "careless")) grow = careless;
    if (!strcmp(what, "twice")) grow = twice;
    if (!strcmp(what, "patient")) grow = patient;
    if (!strcmp(what, "proud")) grow = proud;
    if (!strcmp(what, "silent")) grow = silent;
    int count = argc > 2 ? atoi(argv[2]) : 3;
    struct node *list = NULL;
    for (int i = 0; i < count; i++) {
        struct node *longer = i == 1 ? grow(list) : careful(list);
        if (!longer) {
            release(list);
            say("no memory\n");
            return 1;
        }
        list = longer;
    }
    release(list);
    say("done\n");
    return 0;
}
