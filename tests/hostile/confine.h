/* Taking things away from a process, for itself and for what it executes. A rule is one of
 *
 *   CALL:ERROR           the system call fails so; `kill` ends the process instead, `nothing` answers success
 *   CALL/N=VALUE:ERROR   the same where argument N has this value
 *   as=MIB data=MIB      RLIMIT_AS, RLIMIT_DATA
 *   lock                 mlockall by the system call, which no library sees
 *   close=N              descriptor N is closed
 *   set=NAME=VALUE       an environment variable
 *   over=FILE=PLACE      in a mount namespace of its own, FILE (or an empty file system, for "") is mounted there
 *   user=ID              another user
 *
 * What the system does not permit ends the process with NOT_PERMITTED. */
#ifndef CONFINE_H
#define CONFINE_H

#include "../preload/programs/program.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct { const char *name; unsigned number; } CALLS[] = {
    {"madvise", SYS_madvise}, {"mremap", SYS_mremap}, {"mprotect", SYS_mprotect}, {"mmap", SYS_mmap},
    {"munmap", SYS_munmap}, {"process_madvise", SYS_process_madvise}, {"membarrier", SYS_membarrier},
    {"getrandom", SYS_getrandom}, {"prctl", SYS_prctl}, {"sched_yield", SYS_sched_yield},
    {"open", SYS_open}, {"openat", SYS_openat}, {"rt_sigaction", SYS_rt_sigaction},
    {"rt_sigprocmask", SYS_rt_sigprocmask}, {"sigaltstack", SYS_sigaltstack}, {"gettid", SYS_gettid},
    {"getpid", SYS_getpid}, {"prlimit64", SYS_prlimit64}, {"process_vm_readv", SYS_process_vm_readv},
    {"clock_gettime", SYS_clock_gettime}, {"nanosleep", SYS_nanosleep}, {"msync", SYS_msync},
    {"munlock", SYS_munlock}, {"futex", SYS_futex}, {"tgkill", SYS_tgkill}, {"read", SYS_read},
};

static const struct { const char *name; int number; } ERRORS[] = {
    {"EPERM", EPERM}, {"EINVAL", EINVAL}, {"ENOSYS", ENOSYS}, {"EAGAIN", EAGAIN}, {"EACCES", EACCES},
    {"ENOENT", ENOENT}, {"ENOMEM", ENOMEM}, {"nothing", 0},
};

static void permitted(int condition) {
    if (!condition) _exit(NOT_PERMITTED);
}

/* An answer for a call, or with argument >= 0 for one value of an argument. No memory is allocated. */
static void filter(unsigned call, int argument, unsigned value, unsigned answer) {
    struct sock_filter whole[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[argument < 0 ? 0 : argument])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    /* Without an argument to look at, the answer comes whatever it is. */
    if (argument < 0) whole[3] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JA, 0, 0, 0);
    struct sock_fprog program = {sizeof whole / sizeof *whole, whole};
    permitted(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    permitted(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
}

static void deny(const char *rule) {
    size_t length = strcspn(rule, "/:");
    const char *answer = strchr(rule, ':');
    unsigned call = ~0u, action = ~0u, value = 0;
    int argument = -1;
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
        if (strlen(CALLS[i].name) == length && strncmp(CALLS[i].name, rule, length) == 0) call = CALLS[i].number;
    for (size_t i = 0; answer && i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (strcmp(ERRORS[i].name, answer + 1) == 0) action = SECCOMP_RET_ERRNO | ERRORS[i].number;
    if (answer && strcmp(answer + 1, "kill") == 0) action = SECCOMP_RET_KILL_PROCESS;
    if (rule[length] == '/') {
        argument = atoi(rule + length + 1);
        value = strtoul(strchr(rule, '=') + 1, NULL, 0);
    }
    EXPECT(call != ~0u && action != ~0u);
    filter(call, argument, value, action);
}

static void limit(int resource, const char *mebibytes) {
    struct rlimit most = {strtoull(mebibytes, NULL, 10) << 20, strtoull(mebibytes, NULL, 10) << 20};
    EXPECT(setrlimit(resource, &most) == 0);
}

static void mount_over(const char *rule) {
    static int apart;
    char file[4096], *place;
    EXPECT(strlen(rule) < sizeof file);
    strcpy(file, rule);
    place = strchr(file, '=');
    EXPECT(place != NULL);
    *place++ = 0;
    if (!apart++) {
        permitted(unshare(CLONE_NEWNS) == 0);
        permitted(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    }
    if (*file) permitted(mount(file, place, NULL, MS_BIND, NULL) == 0);
    else permitted(mount("none", place, "tmpfs", 0, NULL) == 0);
}

static void confine(const char *rule) {
    if (strncmp(rule, "as=", 3) == 0) limit(RLIMIT_AS, rule + 3);
    else if (strncmp(rule, "data=", 5) == 0) limit(RLIMIT_DATA, rule + 5);
    else if (strcmp(rule, "lock") == 0) permitted(syscall(SYS_mlockall, MCL_CURRENT | MCL_FUTURE) == 0);
    else if (strncmp(rule, "close=", 6) == 0) close(atoi(rule + 6));
    else if (strncmp(rule, "over=", 5) == 0) mount_over(rule + 5);
    else if (strncmp(rule, "user=", 5) == 0) permitted(setresgid(65534, 65534, 65534) == 0 && setresuid(atoi(rule + 5), atoi(rule + 5), atoi(rule + 5)) == 0);
    else if (strncmp(rule, "set=", 4) == 0) EXPECT(putenv((char *)rule + 4) == 0);
    else deny(rule);
}

#endif
