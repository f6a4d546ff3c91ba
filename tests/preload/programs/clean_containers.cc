// Correct: containers, strings, streams, shared pointers and threads.
#include "program.h"
#include <algorithm>
#include <deque>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

static std::size_t work(int seed) {
    std::map<std::string, std::vector<int>> map;
    std::unordered_map<int, std::shared_ptr<std::string>> table;
    std::deque<std::function<int()>> calls;
    std::list<std::set<int>> sets(5);
    for (int i = 0; i < 300; i++) {
        std::ostringstream out;
        out << "key " << (i * seed) % 97 << " of a length that no small string has";
        map[out.str()].push_back(i);
        table[i] = std::make_shared<std::string>(out.str());
        calls.push_back([text = out.str(), i] { return static_cast<int>(text.size()) + i; });
        std::next(sets.begin(), i % 5)->insert(i);
    }
    std::size_t sum = 0;
    for (auto &[key, values] : map) sum += key.size() * values.size();
    for (auto &call : calls) sum += static_cast<std::size_t>(call());
    for (auto &set : sets) sum += set.size();
    table.erase(table.begin(), std::next(table.begin(), 100));
    return sum + table.size();
}

int main() {
    std::size_t once = work(3);
    std::vector<std::future<std::size_t>> results;
    for (int i = 0; i < 4; i++) results.push_back(std::async(std::launch::async, work, 3));
    for (auto &result : results) EXPECT(result.get() == once);
    return 0;
}
