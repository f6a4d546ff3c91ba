// Correct: replaces the operators that are named when it is compiled, and says how often each of them is called by each
// form of new and delete. What it prints depends on the C++ library, and not on the allocator.
#include "../preload/programs/program.h"
#include <new>
#include <string>
#include <vector>

static int calls;
static bool refuses;

#if defined HEADER
enum { AHEAD = 32 };
#else
enum { AHEAD = 0 };
#endif

#if !defined FORWARD_ONLY
static void *take(std::size_t size) {
    calls++;
    void *p = refuses || size > PTRDIFF_MAX ? nullptr : malloc(size + AHEAD);
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<char *>(p) + AHEAD;
}

static void give(void *p) {
    calls++;
    if (p != nullptr) free(static_cast<char *>(p) - AHEAD);
}
#endif

#if defined BASIC || defined ONLY_NEW
void *operator new(std::size_t size) { return take(size); }
#endif
#if defined BASIC || defined ONLY_DELETE
void operator delete(void *p) noexcept { give(p); }
#endif
#if defined ARRAY
void *operator new[](std::size_t size) { return take(size); }
void operator delete[](void *p) noexcept { give(p); }
#endif
#if defined NOTHROW
void *operator new(std::size_t size, const std::nothrow_t &) noexcept {
    calls++;
    return malloc(size);
}
#endif
#if defined SIZED
void operator delete(void *p, std::size_t) noexcept { give(p); }
#endif
#if defined ALIGNED
void *operator new(std::size_t size, std::align_val_t align) {
    calls++;
    void *p = aligned_alloc(std::size_t(align), size + 3 * std::size_t(align) - size % std::size_t(align));
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<char *>(p) + std::size_t(align);
}
void operator delete(void *p, std::align_val_t align) noexcept {
    calls++;
    if (p != nullptr) free(static_cast<char *>(p) - std::size_t(align));
}
#endif

static void say(const char *what) {
    printf("%s %d\n", what, calls);
    calls = 0;
}

#define TRY(allocate, give_back)    \
    {                               \
        void *p = allocate;         \
        HIDE(p);                    \
        EXPECT(p != nullptr);       \
        memset(p, 1, 40);           \
        give_back;                  \
        say(#allocate " " #give_back); \
    }

struct Base {
    virtual ~Base() {}
    int words[9];
};

struct Own : Base {
    static void *operator new(std::size_t size) { return malloc(size); }
    static void operator delete(void *p) { free(p); }
};

int main() {
    const std::align_val_t a{64};
    TRY(::operator new(40), ::operator delete(p));
    TRY(::operator new(40), ::operator delete(p, 40));
    TRY(::operator new(40, std::nothrow), ::operator delete(p, std::nothrow));
    TRY(::operator new[](40), ::operator delete[](p));
    TRY(::operator new[](40), ::operator delete[](p, 40));
    TRY(::operator new[](40, std::nothrow), ::operator delete[](p, std::nothrow));
    TRY(::operator new(40, a), ::operator delete(p, a));
    TRY(::operator new(40, a), ::operator delete(p, 40, a));
    TRY(::operator new(40, a, std::nothrow), ::operator delete(p, a, std::nothrow));
    TRY(::operator new[](40, a), ::operator delete[](p, a));
    TRY(::operator new[](40, a), ::operator delete[](p, 40, a));
    TRY(::operator new[](40, a, std::nothrow), ::operator delete[](p, a, std::nothrow));
    TRY(::operator new(6000), ::operator delete(p, 6000));
    TRY(::operator new[](300000), ::operator delete[](p, 300000));
    Base *base = new Base;
    HIDE(base);
    delete base;
    say("object");
    base = new Base[3];
    HIDE(base);
    delete[] base;
    say("objects");
    base = new Own;
    HIDE(base);
    delete base;
    say("object of a class with operators");
    {
        std::string text(100, 'x');
        std::vector<std::string> texts(10, text + text);
        std::vector<std::string> *hidden = &texts;
        HIDE(hidden);
    }
    say("library");
    // Without memory: an exception passes, or is caught for those who asked for none.
    refuses = true;
    std::size_t huge = SIZE_MAX / 2;
    HIDE(huge);
    try {
        void *p = ::operator new[](huge);
        HIDE(p);
    } catch (std::bad_alloc &) {
        say("thrown");
    }
    EXPECT(::operator new(huge, std::nothrow) == nullptr);
    EXPECT(::operator new[](huge, std::nothrow) == nullptr);
    say("caught");
    return 0;
}
