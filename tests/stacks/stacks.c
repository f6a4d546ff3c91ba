/* One scenario a run: an object is allocated, freed and used by functions whose names are known. */
#include "../preload/programs/program.h"
#include <alloca.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>

#define FRAME __attribute__((noinline, noclone, noipa))
/* A frame that the compiler may not leave early: something is done after the call. */
#define AFTER __asm__ volatile("" : : : "memory")

static char *kept;
static volatile char sink;

FRAME char *make_inner(size_t size) { char *made = malloc(size); AFTER; return made; }
FRAME char *make_outer(size_t size) { char *made = make_inner(size); AFTER; return made; }
FRAME void drop_inner(char *p) { free(p); AFTER; }
FRAME void drop_outer(char *p) { drop_inner(p); AFTER; }
/* A leaf: at -O2 without a frame of any kind. */
FRAME char use_leaf(volatile char *p) { return *p; }
FRAME char use_outer(char *p) { char c = use_leaf(p); AFTER; return c; }

FRAME void prepare(void) { kept = make_outer(40); drop_outer(kept); AFTER; }

FRAME void plain(void) { prepare(); sink = use_outer(kept); }

/* Through the C library. */
FRAME int compare(const void *a, const void *b) { (void)a; (void)b; sink = use_outer(kept); AFTER; return 0; }
FRAME void sort(void) { int numbers[8] = {8, 7, 6, 5, 4, 3, 2, 1}; qsort(numbers, 8, sizeof *numbers, compare); AFTER; }
FRAME void callback(void) { prepare(); sort(); }

/* A handler allocates and frees, on the stack it interrupts or on one of its own. */
FRAME void on_signal(int number) { (void)number; prepare(); }
FRAME void interrupted(void) { raise(SIGUSR1); AFTER; }
FRAME void handler(int flags) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    EXPECT(sigaction(SIGUSR1, &action, 0) == 0);
    interrupted();
    sink = use_outer(kept);
}
FRAME void handler_plain(void) { handler(0); }
FRAME void handler_alternate(void) {
    static char space[65536];
    stack_t stack = {.ss_sp = space, .ss_size = sizeof space};
    EXPECT(sigaltstack(&stack, 0) == 0);
    handler(SA_ONSTACK);
}

/* An instruction is interrupted, and not a call. */
FRAME void trapped(void) { __asm__ volatile("ud2\n nop"); AFTER; }
FRAME void on_ill(int number, siginfo_t *info, void *context) {
    (void)number; (void)info;
    prepare();
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}
FRAME void trap(void) {
    struct sigaction action = {.sa_sigaction = on_ill, .sa_flags = SA_SIGINFO};
    EXPECT(sigaction(SIGILL, &action, 0) == 0);
    trapped();
    sink = use_outer(kept);
}

FRAME void *thread_main(void *unused) { prepare(); sink = use_outer(kept); AFTER; return unused; }
FRAME void thread(void) {
    pthread_t id;
    EXPECT(pthread_create(&id, 0, thread_main, 0) == 0);
    pthread_join(id, 0);
}

/* A frame whose size is known at run time, and one whose stack is aligned to more than the ABI's. */
FRAME void sized(size_t n) { volatile char *room = alloca(n); room[0] = 1; prepare(); room[n - 1] = 1; AFTER; }
FRAME void aligned(size_t n) {
    volatile char room[64] __attribute__((aligned(64)));
    volatile char *more = alloca(n);
    room[0] = more[0] = 1;
    sized(n);
    sink = use_outer(kept);
    room[1] = more[1] = 1;
    AFTER;
}
FRAME void frames(void) { aligned(100); }

FRAME void large(void) { volatile char room[3 << 20]; room[0] = 1; sized(200); sink = use_outer(kept); room[1] = 1; AFTER; }

FRAME void recurse(int depth) {
    if (depth != 0) recurse(depth - 1);
    else { prepare(); sink = use_outer(kept); }
    AFTER;
}
FRAME void deep(void) { recurse(20000); }

/* A call that does not return may be a function's last instruction: the return address is another's. */
FRAME __attribute__((noreturn)) void last_words(void) { sink = use_outer(kept); _Exit(1); }
FRAME void ends_with_a_call(void) { prepare(); last_words(); }
FRAME void noreturns(void) { ends_with_a_call(); }

/* A jump to an object: the instruction cannot be fetched. */
FRAME void jump(void (*where)(void)) { where(); AFTER; }
FRAME void fetch(void) { prepare(); jump((void (*)(void))kept); }

/* Assembly without unwind tables, and without a frame pointer. */
__asm__(".text\n.type bare,@function\nbare:\n sub $24,%rsp\n call *%rdi\n add $24,%rsp\n ret\n.size bare,.-bare\n");
void bare(void (*callee)(void));
FRAME void called_back(void) { prepare(); sink = use_outer(kept); AFTER; }
FRAME void calls_bare(void) { bare(called_back); AFTER; }
FRAME void assembly(void) { calls_bare(); }
/* The same with a frame pointer. */
__asm__(".text\n.type framed,@function\nframed:\n push %rbp\n mov %rsp,%rbp\n sub $32,%rsp\n call *%rdi\n leave\n ret\n.size framed,.-framed\n");
void framed(void (*callee)(void));
FRAME void calls_framed(void) { framed(called_back); AFTER; }
FRAME void assembly_framed(void) { calls_framed(); }

/* Two libraries, one after the other, most likely at the same place; the second stays. */
typedef char *make_function(size_t);
FRAME char *by_library(const char *path, size_t size, int stays) {
    void *library = dlopen(path, RTLD_NOW);
    EXPECT(library);
    make_function *make = (make_function *)dlsym(library, "plugged");
    EXPECT(make);
    char *made = make(size);
    EXPECT(stays || dlclose(library) == 0);
    return made;
}
FRAME void closed(char **paths) {
    drop_outer(by_library(paths[0], 40, 0));
    kept = by_library(paths[1], 40, 1);
    drop_outer(kept);
    sink = use_outer(kept);
}

int main(int count, char **arguments) {
    (void)count;
    const char *name = arguments[1];
    static const struct { const char *name; void (*run)(void); } scenarios[] = {
        {"plain", plain}, {"callback", callback}, {"handler", handler_plain}, {"alternate", handler_alternate},
        {"trap", trap}, {"thread", thread}, {"frames", frames}, {"large", large}, {"deep", deep},
        {"noreturn", noreturns}, {"fetch", fetch}, {"assembly", assembly}, {"framed", assembly_framed},
    };
    if (strcmp(name, "closed") == 0) closed(arguments + 2);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (strcmp(name, scenarios[i].name) == 0) scenarios[i].run();
    return 1;
}
