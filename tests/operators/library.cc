// A library with operators of its own that lean on each other, and functions in which objects are made and unmade.
#include "../preload/programs/program.h"
#include <new>
#include <string>

static int calls;

void *operator new(std::size_t size) {
    calls++;
    char *p = size > PTRDIFF_MAX ? nullptr : static_cast<char *>(malloc(size + 32));
    if (p == nullptr) throw std::bad_alloc();
    return p + 32;
}

void operator delete(void *p) noexcept {
    calls++;
    if (p != nullptr) free(static_cast<char *>(p) - 32);
}

extern "C" int library_calls() { return calls; }
extern "C" int *library_make() { return new int[5]{1, 2, 3, 4, 5}; }
extern "C" void library_unmake(int *p) { delete[] p; }
extern "C" std::string *library_text() { return new std::string(100, 'x'); }
extern "C" int library_use() {
    int *one = new int(1), *many = library_make(), *quiet = new (std::nothrow) int(2);
    int sum = *one + many[4] + *quiet;
    delete one;
    library_unmake(many);
    delete quiet;
    return sum;
}
