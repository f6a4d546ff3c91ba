// Correct: every form of new and delete, and a new that no machine can serve.
#include "program.h"
#include <new>

struct alignas(256) Wide {
    char bytes[300];
};

static int handled;

static bool fails(std::size_t size) {
    HIDE(size);
    EXPECT(::operator new(size, std::nothrow) == nullptr);
    EXPECT(::operator new[](size, std::nothrow) == nullptr);
    try {
        void *p = ::operator new(size);
        HIDE(p);
    } catch (std::bad_alloc &) {
        return true;
    }
    return false;
}

int main() {
    EXPECT(fails(SIZE_MAX) && fails(PTRDIFF_MAX) && fails(SIZE_MAX / 4));
    std::set_new_handler([] {
        handled++;
        std::set_new_handler(nullptr);
    });
    try {
        void *p = ::operator new(SIZE_MAX / 2);
        HIDE(p);
    } catch (std::bad_alloc &) {
    }
    EXPECT(handled == 1);
    for (std::size_t size = 0; size < 9000; size = size * 2 + 1) {
        void *a = ::operator new(size), *b = ::operator new[](size), *c = ::operator new(size, std::nothrow);
        void *d = ::operator new[](size, std::nothrow), *e = ::operator new(size, std::align_val_t{128});
        void *f = ::operator new[](size, std::align_val_t{64}), *g = ::operator new(size);
        HIDE(a); HIDE(b); HIDE(c); HIDE(d); HIDE(e); HIDE(f); HIDE(g);
        EXPECT(a && b && c && d && e && f && g && reinterpret_cast<uintptr_t>(e) % 128 == 0);
        memset(e, 1, size);
        ::operator delete(a, size);
        ::operator delete[](b, size);
        ::operator delete(c, std::nothrow);
        ::operator delete[](d, std::nothrow);
        ::operator delete(e, size, std::align_val_t{128});
        ::operator delete[](f, std::align_val_t{64});
        ::operator delete(g);
    }
    Wide *wide = new Wide[3];
    HIDE(wide);
    EXPECT(reinterpret_cast<uintptr_t>(wide) % 256 == 0);
    delete[] wide;
    int *none = nullptr;
    HIDE(none);
    delete none;
    delete[] none;
    return 0;
}
