/* The traced process: one thread does what leads through the allocator's critical sections, another forks whenever the
 * tracer asks for it, and the child uses the whole heap. Arguments: the file of the board, the operations' numbers, and
 * the address space in MiB that the process limits itself to (0: none). */
#include "forkstep.h"
#include <malloc.h>
#include <sys/resource.h>

#define KEPT 64
#define OWN 200
#define GIVEN 160

__attribute__((weak)) int fencepost_check(void);

static struct board *board;

/* From the smallest class to a mapping of its own. */
static const size_t sizes[] = {1,    24,   56,   104,   200,   280,   300,    600,    1000,
                               2000, 4000, 5000, 9000, 20000, 40000, 100000, 300000, 3 << 20};
#define SIZES (sizeof sizes / sizeof *sizes)

/* An object whose ends hold a byte. It is there for a child from when `bytes` is set until that is cleared. */
struct object {
    unsigned char *_Atomic bytes;
    size_t size;
    unsigned char byte;
};

/* The forking thread's, the traced thread's, and those that a third thread allocated for it. */
static struct object kept[KEPT], own[OWN], given[GIVEN], in_handler[4];

static void mark(unsigned char *bytes, size_t size, unsigned char byte) {
    bytes[0] = bytes[size - 1] = bytes[size / 2] = byte;
}

static void intact(const unsigned char *bytes, size_t size, unsigned char byte, const char *whose) {
    if (bytes[0] != byte || bytes[size - 1] != byte || bytes[size / 2] != byte)
        fail("the contents of %s object of %zu bytes changed\n", whose, size);
}

static void put(struct object *object, size_t size) {
    unsigned char *bytes = malloc(size);
    if (!bytes) fail("no memory for %zu bytes\n", size);
    object->size = size;
    object->byte = 1 + size % 251;
    mark(bytes, size, object->byte);
    object->bytes = bytes;
}

static void take(struct object *object, const char *whose) {
    unsigned char *bytes = object->bytes;
    if (!bytes) return;
    intact(bytes, object->size, object->byte, whose);
    object->bytes = NULL;
    free(bytes);
}

static void change(struct object *object, size_t size) {
    unsigned char *bytes = object->bytes;
    object->bytes = NULL;
    bytes = realloc(bytes, size);
    if (!bytes) fail("no memory for %zu bytes\n", size);
    if (bytes[0] != object->byte) fail("realloc to %zu bytes lost the contents\n", size);
    object->size = size;
    mark(bytes, size, object->byte);
    object->bytes = bytes;
}

/* Every size is allocated, resized and freed. */
static void use_all_sizes(void) {
    unsigned char *made[SIZES][2];
    for (size_t i = 0; i < SIZES; i++)
        for (int j = 0; j < 2; j++) {
            unsigned char *bytes = made[i][j] = j ? calloc(1, sizes[i]) : malloc(sizes[i]);
            if (!bytes) fail("a child has no memory for %zu bytes\n", sizes[i]);
            if (j) intact(bytes, sizes[i], 0, "a cleared");
            mark(bytes, sizes[i], 1 + (2 * i + j) % 251);
        }
    for (size_t i = 0; i < SIZES; i++)
        for (int j = 0; j < 2; j++) {
            intact(made[i][j], sizes[i], 1 + (2 * i + j) % 251, "a child's");
            if (j) made[i][j] = realloc(made[i][j], sizes[i] + sizes[i] / 2);
            free(made[i][j]);
        }
    void *aligned = NULL;
    if (posix_memalign(&aligned, 8192, 100)) fail("a child has no aligned memory\n");
    free(aligned);
}

static void *use_in_thread(void *unused) {
    use_all_sizes();
    return unused;
}

static void find_nothing(const char *where) {
    int found = fencepost_check ? fencepost_check() : 0;
    if (found) fail("fencepost_check finds %d errors in %s\n", found, where);
}

/* What every child does: all that its parent's threads left, and everything anew. */
static void child(unsigned number) {
    alarm(CHILD_SECONDS);
    if (number % 2) find_nothing("a fresh child");
    for (int i = 0; i < KEPT; i++)
        if (i % 2) take(&kept[i], "a kept");
        else change(&kept[i], kept[i].size * 2);
    for (int i = 0; i < OWN; i++) take(&own[i], "the traced thread's");
    for (int i = 0; i < GIVEN; i++) take(&given[i], "a given");
    for (int i = 0; i < 4; i++) take(&in_handler[i], "the handler's");
    use_all_sizes();
    if (number % 4 == 0) malloc_trim(0);
    for (int i = 0; i < KEPT; i++) take(&kept[i], "a resized");
    pthread_t thread;
    if (pthread_create(&thread, NULL, use_in_thread, NULL)) fail("a child starts no thread\n");
    pthread_join(thread, NULL);
    find_nothing("a child");
    pid_t pid = fork();
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        use_all_sizes();
        find_nothing("a child's child");
        _exit(0);
    }
    expect(pid, "a child's fork", number);
    if (number % 8 == 0) exit(0);
    _exit(0);
}

/* Only the system calls around fork: this thread takes no part in what the traced one does. */
static void *fork_when_asked(void *unused) {
    for (int i = 0; i < KEPT; i++) put(&kept[i], sizes[i % (SIZES - 2)]);
    for (unsigned number = 0;; number++) {
        while (!changed(&board->asked, number, 60)) {}
        pid_t pid = fork();
        if (pid == 0) child(number);
        int status = -errno;
        if (pid > 0)
            while (waitpid(pid, &status, 0) < 0) {}
        board->status = status;
        set(&board->answered, number + 1);
    }
    return unused;
}

static void make_some(size_t size, int first, int count) {
    for (int i = first; i < first + count; i++) put(&own[i], size);
}

/* Every other one, then the rest. */
static void free_some(int first, int count) {
    for (int i = first; i < first + count; i += 2) take(&own[i], "the traced thread's");
    for (int i = first + 1; i < first + count; i += 2) take(&own[i], "the traced thread's");
}

static void small(void) {
    static const size_t some[] = {24, 280, 3000};
    for (int i = 0; i < 3; i++) make_some(some[i], 0, 85), free_some(0, 85);
}

static void flush(void) {
    make_some(104, 0, 200);
    free_some(0, 200);
    make_some(104, 0, 100);
    free_some(0, 60);
}

static void pages(void) {
    static const size_t some[] = {5000, 100, 9000, 20000};
    for (int i = 0; i < 4; i++) {
        make_some(some[i], 10 * i, 5);
        for (int j = 10 * i; j < 10 * i + 2; j++) change(&own[j], some[i] + 3000), change(&own[j], some[i] / 2);
    }
    free_some(0, 40);
    void *aligned = NULL;
    if (posix_memalign(&aligned, 8192, 10000)) fail("no aligned memory\n");
    free(aligned);
}

/* Small for what they are: what is copied is stepped through as well. */
static void large(void) {
    put(&own[0], 140000), put(&own[1], 3 << 20), put(&own[2], 70000);
    change(&own[0], 150000), change(&own[1], 100000), change(&own[2], 90000), change(&own[2], 20000);
    free_some(0, 3);
}

static void cross(void) {
    for (int i = 0; i < GIVEN; i++) take(&given[i], "a given");
}

static void trim(void) {
    make_some(16000, 0, 40);
    free_some(0, 40);
    malloc_trim(0);
    make_some(16000, 0, 4);
    free_some(0, 4);
}

static void sweep(void) {
    make_some(2000, 0, 4), make_some(9000, 4, 4);
    find_nothing("the parent");
    free_some(0, 8);
}

static void on_signal(int number) {
    static int turn;
    static const size_t some[] = {40, 5000, 600, 100000};
    int before = errno;
    board->in_handler = 1;
    take(&in_handler[turn % 4], "the handler's");
    put(&in_handler[turn % 4], some[turn % 4]);
    turn++;
    board->in_handler = 0;
    errno = before;
}

static void signals(void) {
    static const size_t some[] = {40, 5000, 600, 100000};
    for (int i = 0; i < 80; i++) put(&own[i], some[i < 60 ? 0 : i % 4]);
    free_some(0, 80);
}

static void (*const acts[OPERATIONS])(void) = {small, flush, pages, large, cross, trim, sweep, signals};

/* The thread's whole life is traced, its first allocation and its end included. */
static void *work(void *operation) {
    unsigned thread = syscall(SYS_gettid), begin;
    set(&board->traced, thread);
    while ((begin = board->begin) != thread) changed(&board->begin, begin, 60);
    acts[(uintptr_t)operation]();
    return NULL;
}

int main(int count, char **arguments) {
    int file = open(arguments[1], O_RDWR);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (board == MAP_FAILED) return 2;
    close(file);
    rlim_t most = (rlim_t)atol(arguments[3]) << 20;
    struct rlimit limit = {most, most};
    if (most && setrlimit(RLIMIT_AS, &limit)) return 2;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t forking;
    if (pthread_create(&forking, NULL, fork_when_asked, NULL)) fail("no thread\n");
    for (const char *operation = arguments[2]; *operation; operation++) {
        for (int i = 0; i < GIVEN; i++) put(&given[i], i % 8 == 7 ? 5000 : i % 2 ? 48 : 700);
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(uintptr_t)(*operation - '0'))) fail("no thread\n");
        pthread_join(thread, NULL);
        for (int i = 0; i < GIVEN; i++) take(&given[i], "a given");
        for (int i = 0; i < OWN; i++) take(&own[i], "the traced thread's");
    }
    find_nothing("the parent at its end");
    exit(0);
}
