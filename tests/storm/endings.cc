/* Threads and processes that end in every way, and allocate while they do: destructors of thread-local objects and of
 * keys, `atexit`, cancellation, detached threads that go on while the process ends. */
#include "storm.h"
#include <memory>
#include <string>
#include <vector>

static pthread_key_t key;
static atomic_int destroyed, cancelled;

struct Late {
    std::vector<std::unique_ptr<std::string>> strings;
    void touch(int count) {
        for (int i = 0; i < count; i++) strings.push_back(std::make_unique<std::string>(30 + 37 * i, 'x'));
    }
    ~Late() {
        touch(20);
        strings.erase(strings.begin(), strings.begin() + 5);
        destroyed++;
    }
};

static thread_local Late late;

/* Runs as often as the C library lets it, and leaves something behind each time. */
static void of_key(void *value) {
    char *text = static_cast<char *>(realloc(value, 5000));
    pthread_setspecific(key, text);
    for (int i = 0; i < 30; i++) free(malloc(20 + i * 100));
}

static void *lives(void *) {
    late.touch(10);
    pthread_setspecific(key, strdup("late"));
    return nullptr;
}

/* Its cancellation finds it inside the allocator most of the time, and is heeded outside. */
static void *deferred(void *) {
    uint64_t state = 5;
    struct parcel own[16] = {};
    pthread_cleanup_push([](void *) { free(malloc(100)); cancelled++; }, nullptr);
    late.touch(3);
    for (;;) {
        for (int i = 0; i < 50; i++) act(own, 16, &state);
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return nullptr;
}

/* Cancelled wherever it is while it does not allocate, and allocating again after that in destructors. */
static void *at_once(void *) {
    late.touch(3);
    volatile long spins = 0;
    for (;;) {
        pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, nullptr);
        free(malloc(1 + spins % 4000));
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
        for (int i = 0; i < 1000; i++) spins++;
    }
}

static void *detached(void *number) {
    uint64_t state = 17 + reinterpret_cast<uintptr_t>(number);
    static thread_local struct parcel own[32];
    for (;;) act(own, 32, &state);
}

static void at_exit() {
    std::vector<std::string> some;
    for (int i = 0; i < 100; i++) some.emplace_back(i * 50, 'y');
}

int main(int count, char **arguments) {
    int rounds = atoi(arguments[1]);
    pthread_key_create(&key, of_key);
    atexit(at_exit);
    late.touch(5);
    for (int i = 0; i < rounds; i++) {
        pthread_t threads[4];
        pthread_create(&threads[0], nullptr, lives, nullptr);
        pthread_create(&threads[1], nullptr, lives, nullptr);
        pthread_create(&threads[2], nullptr, deferred, nullptr);
        pthread_create(&threads[3], nullptr, at_once, nullptr);
        usleep(1000);
        pthread_cancel(threads[2]);
        pthread_cancel(threads[3]);
        for (int j = 0; j < 4; j++) pthread_join(threads[j], nullptr);
    }
    if (destroyed < 4 * rounds || cancelled != rounds) fail("%d destroyed, %d cancelled\n", int(destroyed), int(cancelled));
    for (uintptr_t i = 0; i < 4; i++) {
        pthread_t thread;
        pthread_create(&thread, nullptr, detached, reinterpret_cast<void *>(i));
        pthread_detach(thread);
    }
    usleep(20000);
    say("%d rounds\n", rounds);
    return 0;
}
