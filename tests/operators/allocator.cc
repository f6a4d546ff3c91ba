// Correct: brings a malloc of its own, which counts and hands out what no other allocator knows, and says how often it
// was called by whom. With -DPASSES_ON it passes on to the next one instead, as those do that only count.
#include "../preload/programs/program.h"
#include <dlfcn.h>
#include <new>
#include <string>
#include <vector>

struct Head { size_t size, mark; };
enum { ROOM = 1 << 20, MARK = 0xfeed };

static int allocations, resizes, frees;

#if defined PASSES_ON
template <class F> static F *next(const char *name) { return reinterpret_cast<F *>(dlsym(RTLD_NEXT, name)); }
static void *take(size_t size) { return next<void *(size_t)>("malloc")(size); }
static void give(void *p) { next<void(void *)>("free")(p); }
static size_t size_of(void *) { return 0; }
#else
alignas(16) static char room[ROOM];
static size_t used;

static void *take(size_t size) {
    size_t needed = sizeof(Head) + (size + 15) / 16 * 16;
    if (needed > ROOM - used) return nullptr;
    Head *head = reinterpret_cast<Head *>(room + used);
    used += needed;
    *head = {size, MARK};
    return head + 1;
}

static void give(void *p) {
    Head *head = static_cast<Head *>(p) - 1;
    bool mine = reinterpret_cast<char *>(head) >= room && reinterpret_cast<char *>(head) < room + used;
    if (!mine || head->mark != MARK) _Exit(3);
    head->mark = 0;
}

static size_t size_of(void *p) { return p == nullptr ? 0 : (static_cast<Head *>(p) - 1)->size; }
#endif

extern "C" void *malloc(size_t size) {
    allocations++;
    return take(size);
}

extern "C" void free(void *p) {
    if (p == nullptr) return;
    frees++;
    give(p);
}

extern "C" void *calloc(size_t count, size_t size) {
    void *p = malloc(count * size);
    return p == nullptr ? p : memset(p, 0, count * size);
}

extern "C" void *realloc(void *p, size_t size) {
    resizes++;
#if defined PASSES_ON
    (void)size_of;
    return next<void *(void *, size_t)>("realloc")(p, size);
#else
    void *q = malloc(size);
    if (p != nullptr && q != nullptr) {
        memcpy(q, p, size_of(p) < size ? size_of(p) : size);
        free(p);
    }
    return q;
#endif
}

static void say(const char *what) {
    printf("%s: %d %d %d\n", what, allocations, resizes, frees);
    allocations = resizes = frees = 0;
}

struct Object { char bytes[100]; };

int main() {
    setvbuf(stdout, nullptr, _IONBF, 0);
    say("start");
    Object *object = new Object;
    HIDE(object);
    delete object;
    say("new");
    char *array = new char[10];
    HIDE(array);
    delete[] array;
    say("new[]");
    array = new (std::nothrow) char[10];
    HIDE(array);
    operator delete[](array, std::nothrow);
    say("nothrow");
    void *p = reallocarray(nullptr, 10, 10);
    EXPECT(p != nullptr);
    memset(p, 'x', 100);
    p = reallocarray(p, 100, 10);
    EXPECT(p != nullptr && static_cast<char *>(p)[99] == 'x');
    EXPECT(reallocarray(p, SIZE_MAX / 2, 3) == nullptr);
    free(p);
    say("reallocarray");
    char *text = strdup("text");
    HIDE(text);
    free(text);
    say("strdup");
    {
        std::vector<std::string> strings(20, std::string(100, 's'));
        HIDE(object);
    }
    say("strings");
    puts("done");
    return 0;
}
