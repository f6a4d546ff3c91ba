// Correct: linked with a library that has operators of its own; objects go both ways.
#include "../preload/programs/program.h"
#include <string>

extern "C" int library_calls();
extern "C" int *library_make();
extern "C" void library_unmake(int *);
extern "C" std::string *library_text();
extern "C" int library_use();

int main() {
    EXPECT(library_use() == 8);
    printf("own %d\n", library_calls());
    int *p = library_make();
    HIDE(p);
    delete[] p;
    printf("deleted here %d\n", library_calls());
    p = new int[5];
    HIDE(p);
    library_unmake(p);
    printf("deleted there %d\n", library_calls());
    std::string *text = library_text();
    *text += *text;
    HIDE(text);
    delete text;
    printf("text %d\n", library_calls());
    return 0;
}
