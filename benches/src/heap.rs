//! The one table of allocators.

use std::path::PathBuf;

/// What an allocator is measured for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What everything else is a multiple of.
    Baseline,
    /// fencepost in one mode.
    Fencepost,
    /// Built for speed or for hardening.
    Peer,
    /// Built for finding bugs.
    Hunter,
}

/// How a program is put under an allocator from outside.
#[derive(Clone, Copy, Debug)]
pub enum Preload {
    /// There is no shared object of it.
    None,
    /// What the program has anyway.
    Libc,
    /// `libfencepost.so`, built by the driver.
    Fencepost,
    /// The peer's crate, built by the driver with this feature of `preload`.
    Crate(&'static str),
    /// The first of these paths that exists, from this Debian package.
    Debian { package: &'static str, paths: &'static [&'static str] },
    /// A command that runs the program, from this Debian package.
    Wrapper { package: &'static str, command: &'static [&'static str] },
    /// Compiled into the program by this compiler: only for programs the driver compiles itself.
    Recompiled { package: &'static str, command: &'static [&'static str] },
}

/// One column of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Heap {
    /// Its name in records and tables.
    pub name: &'static str,
    pub kind: Kind,
    /// The cargo feature and crate that make it the `GlobalAlloc` of `runner`.
    pub global: Option<(&'static str, &'static str)>,
    pub preload: Preload,
    /// Environment of the measured process.
    pub env: &'static [(&'static str, &'static str)],
}

/// The directories where Debian puts shared objects on x86-64.
macro_rules! debian {
    ($package:literal, $($path:literal),+) => { Preload::Debian { package: $package, paths: &[$($path),+] } };
}

const FENCEPOST: Heap = Heap {
    name: "fencepost-harden",
    kind: Kind::Fencepost,
    global: Some(("heap-fencepost", "fencepost")),
    preload: Preload::Fencepost,
    env: &[("FENCEPOST_OPTIONS", "mode=harden")],
};

const PEER: Heap = Heap { name: "", kind: Kind::Peer, global: None, preload: Preload::None, env: &[] };
const HUNTER: Heap = Heap { kind: Kind::Hunter, ..PEER };

/// Every allocator, in the order of the tables.
pub const HEAPS: &[Heap] = &[
    Heap { name: "glibc", kind: Kind::Baseline, global: Some(("", "")), preload: Preload::Libc, env: &[] },
    FENCEPOST,
    Heap {
        name: "fencepost-harden-128k",
        env: &[("FENCEPOST_OPTIONS", "mode=harden:unmap_threshold=131072")],
        ..FENCEPOST
    },
    Heap { name: "fencepost-patrol", env: &[("FENCEPOST_OPTIONS", "mode=patrol")], ..FENCEPOST },
    Heap { name: "fencepost-hunt", env: &[("FENCEPOST_OPTIONS", "mode=hunt")], ..FENCEPOST },
    Heap {
        name: "mimalloc",
        global: Some(("heap-mimalloc", "mimalloc")),
        preload: debian!("libmimalloc2.0", "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2"),
        ..PEER
    },
    Heap {
        name: "mimalloc-secure",
        global: Some(("heap-mimalloc-secure", "mimalloc")),
        preload: Preload::Crate("mimalloc-secure"),
        ..PEER
    },
    Heap {
        name: "jemalloc",
        global: Some(("heap-jemalloc", "tikv-jemallocator")),
        preload: debian!("libjemalloc2", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
        ..PEER
    },
    Heap {
        name: "tcmalloc",
        preload: debian!("libtcmalloc-minimal4", "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"),
        ..PEER
    },
    Heap { name: "snmalloc", global: Some(("heap-snmalloc", "snmalloc-rs")), ..PEER },
    Heap {
        name: "snmalloc-check",
        global: Some(("heap-snmalloc-check", "snmalloc-rs")),
        preload: Preload::Crate("snmalloc-check"),
        ..PEER
    },
    Heap {
        name: "scudo",
        global: Some(("heap-scudo", "scudo")),
        preload: debian!(
            "libclang-rt-19-dev",
            "/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.scudo_standalone-x86_64.so"
        ),
        ..PEER
    },
    Heap {
        name: "hardened-malloc-light",
        global: Some(("heap-hardened-malloc-light", "hardened-malloc")),
        preload: Preload::Crate("hardened-malloc-light"),
        ..PEER
    },
    Heap {
        name: "hardened-malloc",
        global: Some(("heap-hardened-malloc", "hardened-malloc")),
        preload: Preload::Crate("hardened-malloc"),
        ..PEER
    },
    Heap { name: "compatmalloc", global: Some(("heap-compatmalloc", "compatmalloc")), ..PEER },
    Heap {
        name: "electric-fence",
        preload: debian!("electric-fence", "/usr/lib/libefence.so.0"),
        env: &[("EF_ALLOW_MALLOC_0", "1"), ("EF_DISABLE_BANNER", "1")],
        ..HUNTER
    },
    Heap {
        name: "duma",
        preload: debian!("duma", "/usr/lib/libduma.so.0"),
        env: &[("DUMA_ALLOW_MALLOC_0", "1"), ("DUMA_DISABLE_BANNER", "1"), ("DUMA_OUTPUT_STDERR", "0")],
        ..HUNTER
    },
    Heap {
        name: "valgrind",
        preload: Preload::Wrapper {
            package: "valgrind",
            command: &["valgrind", "-q", "--tool=memcheck", "--leak-check=no"],
        },
        ..HUNTER
    },
    Heap {
        name: "asan-preloaded",
        preload: debian!(
            "libclang-rt-19-dev",
            "/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.asan-x86_64.so"
        ),
        env: &[("ASAN_OPTIONS", "detect_leaks=0")],
        ..HUNTER
    },
    Heap {
        name: "asan-recompiled",
        preload: Preload::Recompiled { package: "clang-19", command: &["clang-19", "-fsanitize=address"] },
        env: &[("ASAN_OPTIONS", "detect_leaks=0")],
        ..HUNTER
    },
];

impl Heap {
    /// Whether the command line's `--only` list names this allocator; the baseline is always in.
    pub fn wanted(&self, only: &[String]) -> bool {
        self.kind == Kind::Baseline
            || only.is_empty()
            || only.iter().any(|name| self.name.starts_with(name.as_str()))
    }

    /// The Debian package it comes from.
    pub fn package(&self) -> Option<&'static str> {
        match self.preload {
            Preload::Debian { package, .. }
            | Preload::Wrapper { package, .. }
            | Preload::Recompiled { package, .. } => Some(package),
            Preload::None | Preload::Libc | Preload::Fencepost | Preload::Crate(_) => None,
        }
    }
}

/// The first of `paths` that exists.
pub fn existing(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

/// A program's path: Debian's own first, so that a wrapper further up `PATH` is not measured in its place.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from("/usr/bin"))
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
