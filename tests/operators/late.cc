// Correct: replaces the basic operators, which a library's constructor is the first to need.
#include "../preload/programs/program.h"
#include <new>

extern "C" void early_end();
static int live, made;

void *operator new(std::size_t size) {
    char *p = static_cast<char *>(malloc(size + 32));
    if (p == nullptr) throw std::bad_alloc();
    live++, made++;
    return p + 32;
}

void operator delete(void *p) noexcept {
    if (p == nullptr) return;
    live--;
    free(static_cast<char *>(p) - 32);
}

int main() {
    EXPECT(made >= 2);
    early_end();
    printf("live %d\n", live);
    return 0;
}
