//! The one list of exported symbols: a row each, with its family.
//!
//! The list consists of macros that pass their rows to another macro. `entry` and `cxx` make the functions of them.
//! `tests/symbols.rs` includes this file and compares the rows with the library's exports and with the table in
//! `README.md`.

/// The C functions that are an entry each: family, C name, arguments, result, the registers behind the
/// arguments (for the stack pointer and the frame pointer), the function that does the work.
macro_rules! c_symbols {
    ($each:ident) => {
        $each! {
            "allocate" calloc(count: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::calloc;
            "allocate" realloc(pointer: *mut c_void, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::realloc;
            "allocate" reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void, "rcx", "r8", crate::c::reallocarray;
            "allocate" memalign(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
            "allocate" aligned_alloc(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
            "allocate" posix_memalign(result: *mut *mut c_void, align: usize, size: usize) -> c_int, "rcx", "r8", crate::c::posix_memalign;
            "allocate" valloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::valloc;
            "allocate" pvalloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::pvalloc;
            "free" cfree(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free_general;
            "free" free_sized(pointer: *mut c_void, size: usize) -> (), "rdx", "rcx", crate::c::free_sized;
            "free" free_aligned_sized(pointer: *mut c_void, align: usize, size: usize) -> (), "rcx", "r8", crate::c::free_aligned_sized;
            "query" malloc_usable_size(pointer: *mut c_void) -> usize, "rsi", "rdx", crate::c::malloc_usable_size;
            "query" mallinfo() -> MallInfo, "rsi", "rdx", crate::tuning::mallinfo;
            "query" mallinfo2() -> MallInfo2, "rsi", "rdx", crate::tuning::mallinfo2;
            "query" malloc_info(options: c_int, stream: *mut c_void) -> c_int, "rdx", "rcx", crate::tuning::malloc_info;
            "query" malloc_stats() -> (), "rdi", "rsi", crate::tuning::malloc_stats;
            "fencepost" fencepost_poison(pointer: *const c_void, size: usize) -> c_int, "rdx", "rcx", crate::c::poison;
            "fencepost" fencepost_unpoison(pointer: *const c_void, size: usize) -> c_int, "rdx", "rcx", crate::c::unpoison;
            "tune" mallopt(parameter: c_int, value: c_int) -> c_int, "rdx", "rcx", crate::tuning::mallopt;
            "tune" malloc_trim(pad: usize) -> c_int, "rsi", "rdx", crate::tuning::malloc_trim;
        }
    };
}

/// The same for glibc's other names. (musl has functions of some of these names for itself.)
#[cfg(target_env = "gnu")]
macro_rules! glibc_symbols {
    ($each:ident) => {
        $each! {
            "glibc" __libc_malloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::malloc;
            "glibc" __libc_calloc(count: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::calloc;
            "glibc" __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::realloc;
            "glibc" __libc_free(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free_general;
            "glibc" __libc_memalign(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
            "glibc" __libc_valloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::valloc;
            "glibc" __libc_pvalloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::pvalloc;
            "glibc" __libc_mallinfo() -> MallInfo, "rsi", "rdx", crate::tuning::mallinfo;
            "glibc" __libc_mallopt(parameter: c_int, value: c_int) -> c_int, "rdx", "rcx", crate::tuning::mallopt;
        }
    };
}

/// The C++ operators `new`: row number, symbol, a name in Rust, origin, whether the second argument is an
/// alignment, the operator whose default form this one's calls.
macro_rules! new_symbols {
    ($each:ident) => {
        $each! {
            0, "_Znwm", new_plain, New, false, none;
            1, "_Znam", new_array, NewArray, false, new_plain;
            2, "_ZnwmRKSt9nothrow_t", new_nothrow, New, false, new_plain;
            3, "_ZnamRKSt9nothrow_t", new_array_nothrow, NewArray, false, new_array;
            4, "_ZnwmSt11align_val_t", new_aligned, New, true, none;
            5, "_ZnamSt11align_val_t", new_array_aligned, NewArray, true, new_aligned;
            6, "_ZnwmSt11align_val_tRKSt9nothrow_t", new_aligned_nothrow, New, true, new_aligned;
            7, "_ZnamSt11align_val_tRKSt9nothrow_t", new_array_aligned_nothrow, NewArray, true, new_array_aligned;
        }
    };
}

/// The C++ operators `delete`: row number, symbol, a name in Rust, origin, whether the second argument is the object's
/// size, the operator whose default form this one's calls.
macro_rules! delete_symbols {
    ($each:ident) => {
        $each! {
            8, "_ZdlPv", delete, New, false, none;
            9, "_ZdaPv", delete_array, NewArray, false, delete;
            10, "_ZdlPvm", delete_sized, New, true, delete;
            11, "_ZdaPvm", delete_array_sized, NewArray, true, delete_array;
            12, "_ZdlPvRKSt9nothrow_t", delete_nothrow, New, false, delete;
            13, "_ZdaPvRKSt9nothrow_t", delete_array_nothrow, NewArray, false, delete_array;
            14, "_ZdlPvSt11align_val_t", delete_aligned, New, false, none;
            15, "_ZdaPvSt11align_val_t", delete_array_aligned, NewArray, false, delete_aligned;
            16, "_ZdlPvmSt11align_val_t", delete_sized_aligned, New, true, without_size_aligned;
            17, "_ZdaPvmSt11align_val_t", delete_array_sized_aligned, NewArray, true, without_size_array_aligned;
            18, "_ZdlPvSt11align_val_tRKSt9nothrow_t", delete_aligned_nothrow, New, false, delete_aligned;
            19, "_ZdaPvSt11align_val_tRKSt9nothrow_t", delete_array_aligned_nothrow, NewArray, false, delete_array_aligned;
        }
    };
}

/// What has a definition of its own: family, symbol.
#[cfg(any(test, target_env = "gnu"))]
macro_rules! other_symbols {
    ($each:ident) => {
        $each! {
            "allocate" malloc;
            "free" free;
            "interposed" dlopen;
            "interposed" dlmopen;
            "interposed" dlsym;
            "interposed" mlockall;
            "interposed" sigaction;
            "interposed" signal;
            "interposed" bsd_signal;
            "interposed" ssignal;
            "interposed" sysv_signal;
            "interposed" __sysv_signal;
            "interposed" sigset;
            "interposed" sigignore;
            "interposed" siginterrupt;
            "interposed" sigaltstack;
            "interposed" pthread_create;
            "interposed" pthread_sigmask;
            "interposed" sigprocmask;
            "interposed" __longjmp_chk;
            "interposed" _exit;
            "interposed" _Exit;
            "interposed" execve;
            "interposed" execv;
            "interposed" execvp;
            "interposed" execvpe;
            "interposed" fexecve;
            "interposed" execveat;
            "interposed" posix_spawn;
            "interposed" posix_spawnp;
            "interposed" system;
            "interposed" popen;
            "interposed" execl;
            "interposed" execlp;
            "interposed" execle;
            "interposed" setrlimit;
            "interposed" setrlimit64;
            "interposed" prlimit;
            "interposed" prlimit64;
            "fencepost" fencepost_check;
            "fencepost" fencepost_check_leaks;
            "fencepost" fencepost_bounds;
            "fencepost" fencepost_check_range;
        }
    };
}
