/* Correct: stands before the C library's functions that map memory, as trackers do, and notes what they are called for in
 * objects. */
#include "../preload/programs/program.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>

struct note { struct note *next; long number; };

static struct note *notes;
static int count;

static long call(long number, long a, long b, long c, long d, long e, long f) {
    struct note *note = malloc(sizeof *note);
    if (note) *note = (struct note){notes, number}, notes = note;
    count++;
    register long fourth __asm__("r10") = d, fifth __asm__("r8") = e, sixth __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth) : "rcx", "r11", "memory");
    return result < 0 ? -1 : result;
}

void *mmap(void *p, size_t size, int rights, int flags, int fd, off_t offset) {
    return (void *)call(SYS_mmap, (long)p, (long)size, rights, flags, fd, offset);
}
int munmap(void *p, size_t size) { return (int)call(SYS_munmap, (long)p, (long)size, 0, 0, 0, 0); }
int mprotect(void *p, size_t size, int rights) { return (int)call(SYS_mprotect, (long)p, (long)size, rights, 0, 0, 0); }
int madvise(void *p, size_t size, int advice) { return (int)call(SYS_madvise, (long)p, (long)size, advice, 0, 0, 0); }

static void *work(void *given) {
    static __thread char *objects[300];
    for (int i = 0; i < 300; i++) {
        objects[i] = malloc(i * i + 1);
        EXPECT(objects[i] != NULL);
        memset(objects[i], i, i * i + 1);
    }
    for (int i = 0; i < 300; i++) {
        objects[i] = realloc(objects[i], 3 * i * i + 1);
        EXPECT(objects[i] != NULL && objects[i][i * i] == (char)i);
        free(objects[i]);
    }
    return given;
}

int main(void) {
    pthread_t thread;
    work(NULL);
    EXPECT(pthread_create(&thread, NULL, work, NULL) == 0 && pthread_join(thread, NULL) == 0);
    work(NULL);
    EXPECT(count == 0);
    void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(mapping != MAP_FAILED && munmap(mapping, 4096) == 0 && count == 2);
    puts("done");
    return 0;
}
