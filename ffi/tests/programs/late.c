/* Errors of which one run shows less than another would. */
#include <stdlib.h>
#include <string.h>

static char *object;
static const char text[10000] = "sixteen bytes...";

__attribute__((noinline)) static void copy(size_t bytes) {
    memcpy(object, text, bytes); /* MARK copied */
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "slack")) {
        object = malloc(5);
        strcpy(object, "sixth");
        free(object); /* MARK freed */
    } else if (!strcmp(what, "before")) {
        object = malloc(5);
        object[-1] = 7;
        free(object);
    } else if (!strcmp(what, "again")) {
        object = malloc(5);
        free(object);
        free(object);
    } else if (!strcmp(what, "library")) {
        object = malloc(8192);
        copy(8192 + argc);
    } else if (!strcmp(what, "string")) {
        object = malloc(8192);
        memset(object, 'x', 8192);
        return strlen(object) == 8193;
    }
    return 0;
}
