/* Correct: limits its own address space, and has what is left of it: threads, mappings, objects that end near the
 * limit. What it had and what others mapped meanwhile stays as it was. The argument says in which order. */
#include "confine.h"
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

enum { OBJECTS = 400, MAPPINGS = 600, THREADS = 3, MIB = 1 << 20 };

static size_t size_of(size_t i) { return i % 50 == 0 ? 300000 + i * 100 : i % 9 == 0 ? 4000 + i * 40 : 1 + i * 7 % 900; }

static char *objects[OBJECTS];

static void make(char **all) {
    for (size_t i = 0; i < OBJECTS; i++) {
        all[i] = malloc(size_of(i));
        EXPECT(all[i] != NULL);
        memset(all[i], (int)i, size_of(i));
    }
}

static void check(char **all) {
    for (size_t i = 0; i < OBJECTS; i++)
        for (size_t at = 0; at < size_of(i); at += 61) EXPECT(all[i][at] == (char)i);
}

static void drop(char **all) {
    check(all);
    for (size_t i = 0; i < OBJECTS; i++) free(all[i]);
}

static void lower(size_t mebibytes) {
    struct rlimit limit;
    EXPECT(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = mebibytes << 20;
    EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
}

static size_t mapped(void) {
    char line[256];
    size_t kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    EXPECT(status != NULL);
    while (fgets(line, sizeof line, status)) sscanf(line, "VmSize: %zu", &kib);
    fclose(status);
    return kib >> 10;
}

static void *nothing(void *given) { return given; }

/* A thread starts and ends, a page is mapped, and both twice. */
static void room(void) {
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(page != MAP_FAILED);
        EXPECT(pthread_create(&thread, NULL, nothing, NULL) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
        munmap(page, 4096);
    }
}

/* Mappings wherever the kernel puts them, what was the heap's included, hold what was written. They are filled, kept over
 * the heap's work, and looked at. */
static void others(void) {
    static char *pages[MAPPINGS];
    char *more[OBJECTS];
    for (int i = 0; i < MAPPINGS; i++) {
        pages[i] = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(pages[i] != MAP_FAILED);
        memset(pages[i], i, 65536);
    }
    for (int round = 0; round < 3; round++) {
        make(more);
        malloc_trim(0);
        drop(more);
    }
    for (int i = 0; i < MAPPINGS; i++) {
        for (size_t at = 0; at < 65536; at += 511) EXPECT(pages[i][at] == (char)i);
        munmap(pages[i], 65536);
    }
}

static volatile int ending;

static void *churn(void *given) {
    char *mine[OBJECTS];
    while (!ending) {
        make(mine);
        drop(mine);
    }
    return given;
}

/* Objects of one size until there are no more; how many MiB. */
static size_t fill_up(size_t size) {
    size_t all = 0;
    char **last = NULL, **next;
    while ((next = malloc(size))) {
        *next = (char *)last;
        last = next;
        all += size;
        EXPECT(all < 1500ul * MIB);
    }
    while (last) {
        next = (char **)*last;
        free(last);
        last = next;
    }
    return all >> 20;
}

enum { RANGES = 4096 };
typedef struct {
    uintptr_t start, end;
} range;

/* What is mapped, in order of addresses; how many ranges. */
static size_t all_mapped(range *all) {
    char line[512];
    size_t count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    EXPECT(maps != NULL);
    while (count < RANGES && fgets(line, sizeof line, maps))
        count += sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &all[count].start, &all[count].end) == 2;
    fclose(maps);
    return count;
}

/* Maps a page in each hole that the heap leaves under a limit, and looks at them when it has left more. */
static void holes(void) {
    static range before[RANGES], after[RANGES];
    static uintptr_t *pages[RANGES];
    size_t had = all_mapped(before), count = 0;
    lower(768);
    size_t left = all_mapped(after), next = 0;
    for (size_t i = 0; i < had; i++)
        for (uintptr_t at = before[i].start; at < before[i].end && count < RANGES;) {
            while (next < left && after[next].end <= at) next++;
            if (next < left && after[next].start <= at) {
                at = after[next].end;
                continue;
            }
            void *page = mmap((void *)at, 4096, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
            if (page == (void *)at) *(pages[count++] = page) = at;
            at = next < left && after[next].start < before[i].end ? after[next].start : before[i].end;
        }
    /* The C library leaves none. */
    EXPECT(count >= 50 || getenv("LD_PRELOAD") == NULL);
    fill_up(MIB);
    for (size_t i = 0; i < count; i++) EXPECT(*pages[i] == (uintptr_t)pages[i]);
}

int main(int argc, char **argv) {
    EXPECT(argc == 2);
    const char *part = argv[1];
    if (strcmp(part, "early") == 0) {
        lower(512);
        EXPECT(mapped() <= 512 / 2);
        room();
        make(objects);
        others();
        drop(objects);
    } else if (strcmp(part, "late") == 0) {
        make(objects);
        lower(512);
        EXPECT(mapped() <= 512 / 2);
        room();
        others();
        check(objects);
        for (size_t i = 0; i < OBJECTS; i++) {
            objects[i] = realloc(objects[i], size_of(i) * 2);
            EXPECT(objects[i] != NULL);
        }
        drop(objects);
    } else if (strcmp(part, "beside") == 0) {
        pthread_t threads[THREADS];
        make(objects);
        for (int i = 0; i < THREADS; i++) EXPECT(pthread_create(&threads[i], NULL, churn, NULL) == 0);
        for (size_t most = 8192; most >= 512; most /= 2) {
            usleep(20000);
            lower(most);
            others();
        }
        ending = 1;
        for (int i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
        room();
        drop(objects);
    } else if (strcmp(part, "twice") == 0) {
        make(objects);
        struct rlimit limit = {2048ul * MIB, RLIM_INFINITY};
        EXPECT(prlimit(getpid(), RLIMIT_AS, &limit, NULL) == 0);
        others();
        limit.rlim_cur = 1024ul * MIB;
        EXPECT(prlimit(0, RLIMIT_AS, &limit, NULL) == 0);
        others();
        lower(384);
        EXPECT(mapped() <= 384 / 2);
        room();
        others();
        limit.rlim_cur = RLIM_INFINITY;
        EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
        others();
        drop(objects);
        make(objects);
        drop(objects);
    } else if (strcmp(part, "vfork") == 0) {
        make(objects);
        size_t before = mapped();
        pid_t child = vfork();
        EXPECT(child >= 0);
        if (child == 0) {
            struct rlimit limit = {256ul * MIB, 256ul * MIB};
            if (setrlimit(RLIMIT_AS, &limit) == 0) execl("/bin/true", "true", (char *)NULL);
            _exit(1);
        }
        int status;
        EXPECT(waitpid(child, &status, 0) == child && status == 0);
        EXPECT(mapped() + 16 >= before);
        drop(objects);
    } else if (strcmp(part, "child") == 0) {
        make(objects);
        size_t before = mapped();
        for (int i = 0; i < 20; i++) {
            pid_t child = fork();
            EXPECT(child >= 0);
            if (child == 0) {
                lower(256);
                room();
                check(objects);
                if (i % 2) execl("/bin/true", "true", (char *)NULL);
                drop(objects);
                _exit(0);
            }
            int status;
            EXPECT(waitpid(child, &status, 0) == child && status == 0);
        }
        EXPECT(mapped() + 16 >= before);
        drop(objects);
    } else if (strcmp(part, "end") == 0) {
        make(objects);
        lower(768);
        EXPECT(fill_up(MIB) >= 650);
        room();
        EXPECT(fill_up(20000) >= 300);
        EXPECT(fill_up(100) >= 100);
        check(objects);
        room();
        drop(objects);
    } else if (strcmp(part, "holes") == 0) {
        make(objects);
        holes();
        room();
        drop(objects);
    } else EXPECT(!"a part");
    puts("done");
    return 0;
}
