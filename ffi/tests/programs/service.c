/* Allocates, says so, and waits; when a byte comes it frees an object twice, and waits on. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *kept[1010];

static void nothing(int number)
{
    (void)number;
}

/* A place for a breakpoint. */
__attribute__((noinline)) static int comes_a_byte(void)
{
    char byte;
    return read(0, &byte, 1) == 1;
}

int main(void)
{
    signal(SIGUSR1, nothing);
    for (int i = 0; i < 1010; i++) {
        kept[i] = malloc(i < 1000 ? 40 : 8192);
        memset(kept[i], i, 40);
    }
    static const char ready[] = "ready\n";
    write(1, ready, sizeof ready - 1);
    if (comes_a_byte()) {
        free(kept[0]);
        free(kept[0]);
        for (;;)
            pause();
    }
    return 0;
}
