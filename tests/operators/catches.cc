// A library that asks for more than there is and goes on, and that uses the C++ library's own objects.
#include "../preload/programs/program.h"
#include <new>
#include <string>

extern "C" int library_use() {
    std::size_t huge = SIZE_MAX / 2;
    HIDE(huge);
    int caught = 0;
    try {
        void *p = ::operator new(huge);
        HIDE(p);
    } catch (std::bad_alloc &) {
        caught++;
    }
    try {
        void *p = ::operator new[](huge, std::align_val_t{128});
        HIDE(p);
    } catch (std::bad_alloc &) {
        caught++;
    }
    EXPECT(::operator new(huge, std::nothrow) == nullptr);
    std::string text(100, 'x');
    text += text;
    std::string *hidden = &text;
    HIDE(hidden);
    return caught + 6;
}
