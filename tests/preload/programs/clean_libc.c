/* Correct: memory that libc allocates for the program, and the reverse. */
#include "program.h"
#include <dirent.h>
#include <locale.h>
#include <regex.h>
#include <search.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

static int compare(const void *a, const void *b) { return strcmp(a, b); }

int main(void) {
    char *text = NULL, *line = NULL;
    size_t length = 0;
    EXPECT(asprintf(&text, "%s %d %5000s", "a", 7, "b") > 5000);
    FILE *file = fmemopen(text, strlen(text), "r");
    EXPECT(file != NULL && getline(&line, &length, file) > 5000 && fclose(file) == 0);
    release(line);
    file = open_memstream(&line, &length);
    EXPECT(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0 && length > 5000);
    char *copy = strndup(line, 100), *path = realpath("/proc/self/../self/fd/..", NULL), *here = getcwd(NULL, 0);
    EXPECT(strlen(copy) == 100 && path != NULL && here != NULL);
    wchar_t *wide = wcsdup(L"wide");
    regex_t regex;
    EXPECT(regcomp(&regex, "(a|b)+ [0-9]*", REG_EXTENDED) == 0 && regexec(&regex, text, 0, NULL, 0) == 0);
    regfree(&regex);
    struct dirent **names = NULL;
    int count = scandir("/", &names, NULL, alphasort);
    EXPECT(count > 2);
    for (int i = 0; i < count; i++) release(names[i]);
    void *root = NULL;
    EXPECT(tsearch("x", &root, compare) != NULL && tsearch("y", &root, compare) != NULL);
    tdelete("x", &root, compare);
    tdelete("y", &root, compare);
    EXPECT(setlocale(LC_ALL, "C.UTF-8") != NULL || setlocale(LC_ALL, "C") != NULL);
    EXPECT(setenv("PROGRAM", text, 1) == 0 && unsetenv("PROGRAM") == 0);
    time_t now = 0;
    EXPECT(localtime(&now) != NULL);
    release(names), release(wide), release(copy), release(path), release(here), release(text), release(line);
    return 0;
}
