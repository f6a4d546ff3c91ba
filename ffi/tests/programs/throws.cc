// operator new without memory: the exception, the handler, null.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

static int handled;
static char *reserve;

static void give_up_reserve() {
    handled++;
    delete[] reserve;
    reserve = nullptr;
    std::set_new_handler(nullptr);
}

// Nobody catches what it throws.
__attribute__((noinline)) static int thrown(int count) {
    int *numbers = new int[count];
    numbers[0] = 0;
    int first = numbers[0];
    delete[] numbers;
    return first;
}

int main(int argc, char **argv) {
    std::string what = argc > 1 ? argv[1] : "";
    if (what == "thrown") return thrown(70);
    try {
        if (what == "handler") {
            reserve = new char[100];
            std::set_new_handler(give_up_reserve);
        }
        std::vector<std::string> words;
        for (int i = 0; i < 20; i++) words.push_back(std::string(100 + i, 'x'));
        int *numbers = new int[50];
        struct alignas(64) Wide { char bytes[64]; };
        Wide *wide = new Wide;
        delete wide;
        delete[] numbers;
    } catch (const std::bad_alloc &) {
        return 1;
    }
    int *none = new (std::nothrow) int[30];
    if (!none) return 2;
    delete[] none;
    delete[] reserve;
    return handled ? 4 : 0;
}
