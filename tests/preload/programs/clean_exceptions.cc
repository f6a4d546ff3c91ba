// Correct: exceptions through frames that own memory, nested, rethrown, kept and from a second thread.
#include "program.h"
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static int deep(int depth) {
    std::vector<std::string> owned(static_cast<std::size_t>(depth), std::string(100, 'x'));
    if (depth == 0) throw std::runtime_error("a message longer than any small string buffer is");
    return deep(depth - 1) + static_cast<int>(owned.size());
}

static void all() {
    std::exception_ptr kept;
    for (int i = 0; i < 50; i++) {
        try {
            try {
                deep(i);
            } catch (...) {
                std::throw_with_nested(std::logic_error("outer"));
            }
        } catch (std::logic_error &) {
            kept = std::current_exception();
        }
    }
    EXPECT(kept);
    try {
        std::rethrow_exception(kept);
    } catch (std::exception &error) {
        EXPECT(std::string(error.what()) == "outer");
    }
}

int main() {
    all();
    std::thread second(all);
    second.join();
    return 0;
}
