// One bug for each kind of report, by name. The lines that reports must show carry a mark.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/wait.h>
#include <unistd.h>

#include "../../include/fencepost.h"

#pragma weak fencepost_poison

#define HIDE(p) __asm__ volatile("" : "+r"(p) : : "memory")

namespace shop {

template <typename T> struct Shelf {
    __attribute__((noinline)) static T *make(size_t count) {
        T *p = static_cast<T *>(malloc(count * sizeof(T))); // MARK allocated
        HIDE(p);
        return p;
    }
    __attribute__((noinline)) static void drop(T *p) {
        HIDE(p);
        free(p); // MARK freed
        HIDE(p);
    }
};

static inline __attribute__((always_inline)) void poke(volatile char *p) {
    *p = 'B'; // MARK inlined
}

__attribute__((noinline)) static void touch(char *p) {
    HIDE(p);
    poke(p); // MARK accessed
    HIDE(p);
}

} // namespace shop

using Shelf = shop::Shelf<char>;

static void in_child(void (*bug)()) {
    pid_t child = fork();
    if (child == 0) {
        bug();
        _exit(0);
    }
    printf("%d\n", static_cast<int>(child));
    fflush(stdout);
    waitpid(child, nullptr, 0);
}

static void overflow() { shop::touch(Shelf::make(13) + 13); }

extern "C" __attribute__((noinline)) void exported_function() {
    overflow();
    __asm__ volatile("");
}

int main(int argc, char **argv) {
    const char *bug = argc > 1 ? argv[1] : "";
    auto is = [bug](const char *name) { return strcmp(bug, name) == 0; };
    if (is("heap-buffer-overflow")) {
        overflow();
    } else if (is("heap-buffer-underflow")) {
        shop::touch(Shelf::make(4096) - 1);
    } else if (is("heap-use-after-free")) {
        char *p = Shelf::make(64);
        Shelf::drop(p);
        shop::touch(p + 3);
    } else if (is("double-free")) {
        char *p = Shelf::make(64);
        Shelf::drop(p);
        Shelf::drop(p);
    } else if (is("invalid-free")) {
        Shelf::drop(Shelf::make(64) + 16);
    } else if (is("alloc-dealloc-mismatch")) {
        Shelf::drop(static_cast<char *>(::operator new(40)));
    } else if (is("bad-size")) {
        void *p = ::operator new(40);
        HIDE(p);
        ::operator delete(p, static_cast<size_t>(24));
    } else if (is("canary-overwritten")) {
        char *p = Shelf::make(16);
        shop::touch(p + 16);
        Shelf::drop(p);
    } else if (is("write-after-free")) {
        char *p = Shelf::make(40);
        Shelf::drop(p);
        shop::touch(p + 8);
    } else if (is("wild-access")) {
        shop::touch(Shelf::make(64) + (1 << 30));
    } else if (is("use-after-poison")) {
        char *p = Shelf::make(3 * 4096);
        if (fencepost_poison == nullptr || !fencepost_poison(p, 3 * 4096)) return 1;
        shop::touch(p + 4096);
    } else if (is("child")) {
        in_child(overflow);
    } else if (is("daemon")) {
        // Outlives the program: waits until the launcher's socket is gone.
        const char *collector = getenv("FENCEPOST_COLLECTOR");
        if (fork() != 0) return 0;
        alarm(20);
        while (collector != nullptr && access(collector, F_OK) == 0) usleep(1000);
        overflow();
    } else if (is("other-user")) {
        if (setgid(65534) != 0 || setuid(65534) != 0) return 77;
        overflow();
    } else if (is("exported")) {
        exported_function();
    } else if (is("wait")) {
        char *live = Shelf::make(13), *freed = Shelf::make(100);
        Shelf::drop(freed);
        printf("%p %p\n", static_cast<void *>(live), static_cast<void *>(freed));
        fflush(stdout);
        pause();
    }
    return 0;
}
