//! Whose code a frame is: a module, a source file or a function of the C and C++ libraries, of Rust's, or the allocator's is
//! nobody's own, and no report is about it.

/// How the names of such modules start.
const MODULES: &[&str] = &[
    "libfencepost",
    "libc.so",
    "libc-",
    "ld-linux",
    "ld-musl",
    "libstdc++",
    "libc++",
    "libgcc_s",
    "libm.so",
    "libpthread",
    "[vdso]",
];
/// How the paths of such source files start: headers of the C++ library, Rust's library where it was built, and the C
/// library's files in a program that has it linked in.
const SOURCES: &[&str] = &[
    "/usr/include/",
    "/usr/lib/gcc/",
    "/usr/lib/llvm",
    "/rustc/",
    "/rust/deps/",
    "/usr/src/rustc",
    "../sysdeps/",
    "../nptl/",
    "./nptl/",
    "./csu/",
    "./libio/",
    "./malloc/",
    "./stdio-common/",
    "./stdlib/",
    "./string/",
    "./sysdeps/",
    "./debug/",
];
/// What lies in such a path where Rust's library comes with its source.
const RUST_SOURCE: &str = "/lib/rustlib/src/rust/library/";
/// The first part of the names of such functions.
const NAMESPACES: &[&str] = &[
    "core",
    "alloc",
    "std",
    "test",
    "compiler_builtins",
    "panic_unwind",
    "__rustc",
    "__gnu_cxx",
    "__cxxabiv1",
];
/// How the names of such functions start that have no namespace.
const FUNCTIONS: &[&str] = &["__rust_", "__rg_", "__rdl_", "operator new", "operator delete"];
/// Where the allocator is a crate of the program.
const ALLOCATOR: &[&str] = &[
    "fencepost::global::",
    "fencepost::heap::",
    "fencepost::page::",
    "fencepost::slab::",
    "fencepost::sys::",
];
/// The functions between a program and its allocator that the compiler makes.
const SHIMS: &[&str] = &[
    "__rust_alloc",
    "__rust_dealloc",
    "__rust_realloc",
    "__rg_",
    "__rdl_",
    "__rustc::__rust_",
    "__rustc::__rg_",
    "__rustc::__rdl_",
];

/// Whether the function of this name is the allocator's where it is a crate of the program, or Rust's way to it.
pub fn is_allocator(name: &str) -> bool {
    let path = name.trim_start_matches('<');
    ALLOCATOR.iter().chain(SHIMS).any(|start| path.starts_with(start))
}

/// Whether the module at this path is.
pub fn is_module(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    MODULES.iter().any(|start| name.starts_with(start))
}

/// Whether the source file at this path is.
pub fn is_source(path: &str) -> bool {
    SOURCES.iter().any(|start| path.starts_with(start)) || path.contains(RUST_SOURCE)
}

/// Whether the function of this name is. A method of a trait is whose type it is of.
pub fn is_function(name: &str) -> bool {
    if FUNCTIONS.iter().any(|start| name.starts_with(start)) {
        return true;
    }
    let mut path = name.trim_start_matches(['<', '&', '(', '[']);
    path = path.strip_prefix("mut ").or_else(|| path.strip_prefix("dyn ")).unwrap_or(path);
    // The type is a parameter: the trait says whose it is.
    if let Some((parameter, method)) = path.split_once(" as ")
        && name.starts_with('<')
        && !parameter.contains("::")
    {
        path = method;
    }
    ALLOCATOR.iter().any(|start| path.starts_with(start))
        || NAMESPACES.iter().any(|space| path.strip_prefix(space).is_some_and(|rest| rest.starts_with("::")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_by_their_namespace() {
        for name in [
            "<alloc::raw_vec::RawVecInner>::try_allocate_in",
            "core::ptr::read_volatile",
            "<T as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
            "std::vector<int, std::allocator<int> >::push_back(int const&)",
            "__rust_alloc",
            "operator new(unsigned long)",
            "<fencepost::global::Fencepost as core::alloc::global::GlobalAlloc>::alloc",
        ] {
            assert!(is_function(name), "{name}");
        }
        for name in [
            "<smallvec::SmallVec<A> as core::ops::drop::Drop>::drop",
            "smallvec::SmallVec<A>::insert_many",
            "corelib::x",
            "main",
            "fencepost::victim::overflow",
            "testing::run",
        ] {
            assert!(!is_function(name), "{name}");
        }
    }

    #[test]
    fn the_way_to_the_allocator_is_no_part_of_a_stack() {
        for name in [
            "<fencepost::global::Fencepost as core::alloc::global::GlobalAlloc>::dealloc",
            "fencepost::global::dealloc_general",
            "__rustc::__rust_dealloc",
            "__rust_alloc",
        ] {
            assert!(is_allocator(name), "{name}");
        }
        for name in ["alloc::alloc::dealloc", "fencepost::victim::free_again", "__rust_begin_short_backtrace"]
        {
            assert!(!is_allocator(name), "{name}");
        }
    }

    #[test]
    fn modules_and_sources_are_told_by_their_paths() {
        assert!(is_module("/lib/x86_64-linux-gnu/libc.so.6") && !is_module("/usr/lib/libcrypto.so.3"));
        assert!(is_source("/rustc/0123/library/core/src/ptr/mod.rs"));
        assert!(is_source("/home/a/.rustup/toolchains/x/lib/rustlib/src/rust/library/alloc/src/vec/mod.rs"));
        for path in ["/home/a/.cargo/registry/src/x/smallvec-1.6.0/lib.rs", "src/lib.rs", "./crypto/bn/a.c"] {
            assert!(!is_source(path), "{path}");
        }
    }
}
