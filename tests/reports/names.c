/* A double free, of a small object and of a large one by argument 2, in a thread that has the name of argument 1. */
#include "../preload/programs/program.h"
#include <pthread.h>
#include <sys/prctl.h>

static void *thread(void *arguments) {
    char **argv = arguments;
    prctl(PR_SET_NAME, argv[1]);
    char *p = object(number(argv, 2));
    release(p);
    release(p);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t id;
    EXPECT(argc == 3 && pthread_create(&id, NULL, thread, argv) == 0);
    pthread_join(id, NULL);
    return 0;
}
