/* Correct: errno is 0 when constructors run and when main begins, in the first thread and in another. */
#include "program.h"
#include <errno.h>
#include <pthread.h>

static int in_constructor = -1;

__attribute__((constructor(101))) static void construct(void) { in_constructor = errno; }

static void *begin(void *unused) { return (void *)(uintptr_t)(errno != 0); }

int main(void) {
    EXPECT(errno == 0);
    EXPECT(in_constructor == 0);
    pthread_t thread;
    void *wrong;
    EXPECT(pthread_create(&thread, NULL, begin, NULL) == 0);
    EXPECT(pthread_join(thread, &wrong) == 0);
    EXPECT(wrong == NULL);
    return 0;
}
