/* Says who answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int main(void) {
    char *text = strdup("?found");
    printf("%zu %s\n", strnlen(text, 3), index(text, 'f'));
    free(text);
    return 0;
}
