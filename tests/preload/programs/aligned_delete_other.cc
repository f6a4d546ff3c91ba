// Bug: an object of argv[1] bytes, made with the alignment argv[2] (0: with new alone), is deleted with the alignment
// argv[3], and with its size if argv[4] is there. Its address may well have the alignment that is stated.
#include "program.h"
#include <new>

int main(int argc, char **argv) {
    size_t size = number(argv, 1), align = number(argv, 2);
    std::align_val_t stated{number(argv, 3)};
    void *p = align == 0 ? ::operator new(size) : ::operator new(size, std::align_val_t{align});
    HIDE(p);
    if (argc > 4) ::operator delete(p, size, stated);
    else ::operator delete(p, stated);
    return 0;
}
