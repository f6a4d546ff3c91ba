//! What `libfencepost.so` exports is what `ffi/src/symbols.rs` lists, no more and no less, and so is the table
//! in `ffi/README.md`.

#[macro_use]
#[path = "../ffi/src/symbols.rs"]
mod table;
#[macro_use]
#[path = "../ffi/src/intercept/table.rs"]
#[allow(unused_macros)]
mod intercepts;
mod support;

use object::{Object, ObjectSymbol};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use support::{compiler, library, process};

macro_rules! c_rows {
    ($($family:literal $name:ident($($argument:ident: $type:ty),*) -> $result:ty, $sp:literal, $fp:literal, $work:path;)+) => {
        [$((stringify!($name), $family)),+]
    };
}

macro_rules! new_rows {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $aligned:literal, $calls:ident;)+) => {
        [$(($symbol, "new")),+]
    };
}

macro_rules! delete_rows {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $sized:literal, $calls:ident;)+) => {
        [$(($symbol, "delete")),+]
    };
}

macro_rules! other_rows {
    ($($family:literal $name:ident;)+) => {
        [$((stringify!($name), $family)),+]
    };
}

macro_rules! intercepted_rows {
    ($($family:ident $name:ident as $shown:ident($($argument:ident: $type:ty),*) -> $result:ty, $rule:tt;)+) => {
        [$((stringify!($name), concat!("intercepted, ", stringify!($family)))),+]
    };
}

macro_rules! variadic_rows {
    ($($family:ident $name:ident as $shown:ident $named:literal ($($argument:ident: $type:ty),*) -> $result:ty, $rule:tt;)+) => {
        [$((stringify!($name), concat!("intercepted, ", stringify!($family)))),+]
    };
}

/// What is intercepted.
fn intercepted() -> impl Iterator<Item = (&'static str, &'static str)> {
    intercepted!(intercepted_rows).into_iter().chain(intercepted_variadic!(variadic_rows))
}

/// Symbol to family.
fn listed() -> BTreeMap<String, String> {
    let rows = c_symbols!(c_rows)
        .into_iter()
        .chain(glibc_symbols!(c_rows))
        .chain(new_symbols!(new_rows))
        .chain(delete_symbols!(delete_rows))
        .chain(other_symbols!(other_rows))
        .chain(intercepted());
    let mut listed = BTreeMap::new();
    for (name, family) in rows {
        assert_eq!(listed.insert(name.to_owned(), family.to_owned()), None, "{name} has two rows");
    }
    listed
}

fn exported() -> Vec<String> {
    let bytes = fs::read(library::path()).expect("the library was built");
    let file = object::File::parse(bytes.as_slice()).expect("the library is an ELF file");
    let mut names: Vec<String> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().expect("a symbol has a name").to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_library_exports_the_table() {
    let listed: Vec<String> = listed().into_keys().collect();
    assert_eq!(exported(), listed, "left: exported, right: ffi/src/symbols.rs");
}

/// Another library in every process would cost each start its mapping, and an access to thread-local storage by a call each
/// `malloc`.
#[test]
fn the_library_needs_no_unwinder_and_no_call_for_its_thread_local_words() {
    let bytes = fs::read(library::path()).expect("the library was built");
    let file = object::File::parse(bytes.as_slice()).expect("the library is an ELF file");
    let needed: Vec<&str> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_undefined())
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.starts_with("_Unwind_") || *name == "__tls_get_addr")
        .collect();
    assert!(needed.is_empty(), "{needed:?}");
}

/// The loader would lead such a call to this library's own definition, or to the program's.
#[test]
fn the_library_calls_nothing_that_it_intercepts() {
    let bytes = fs::read(library::path()).expect("the library was built");
    let file = object::File::parse(bytes.as_slice()).expect("the library is an ELF file");
    let symbols: BTreeMap<_, _> = file
        .dynamic_symbols()
        .map(|symbol| (symbol.index().0, (symbol.name().unwrap_or_default(), symbol.is_undefined())))
        .collect();
    let names: BTreeSet<&str> = intercepted().map(|(name, _)| name).collect();
    let is_bound = |name: &str| names.contains(name);
    let imported: Vec<_> =
        symbols.values().filter(|(name, undefined)| *undefined && is_bound(name)).collect();
    assert!(imported.is_empty(), "{imported:?}");
    let relocations = file.dynamic_relocations().expect("the library is relocated");
    for (offset, relocation) in relocations {
        if let object::RelocationTarget::Symbol(index) = relocation.target() {
            let (name, _) = symbols.get(&index.0).expect("a symbol of the library");
            assert!(!is_bound(name), "the word at {offset:#x} is bound to {name}");
        }
    }
    let malloc = symbols.values().any(|(name, _)| *name == "dlsym");
    assert!(malloc, "its imports were read");
}

/// The static library has none of them: the program that is linked with it keeps the C library's.
#[test]
fn the_static_library_intercepts_nothing() {
    let path = library::path().with_extension("a");
    let bytes = fs::read(path).expect("the library was built");
    let archive = object::read::archive::ArchiveFile::parse(bytes.as_slice()).expect("an archive");
    let mut defined = BTreeSet::new();
    for member in archive.members() {
        let member = member.expect("a member");
        let data = member.data(bytes.as_slice()).expect("its bytes");
        let Ok(file) = object::File::parse(data) else { continue };
        let names = file.symbols().filter(|symbol| symbol.is_definition() && symbol.is_global());
        defined.extend(names.map(|symbol| symbol.name().unwrap_or_default().to_owned()));
    }
    assert!(defined.contains("malloc"), "the archive's symbols were read");
    for (name, _) in intercepted() {
        let found = defined.iter().find(|symbol| *symbol == name || symbol.starts_with(&format!("{name}@")));
        // Those of the compiler's own library are weak and hidden.
        assert!(found.is_none(), "{found:?}");
    }
}

/// All that replaces glibc's functions: its manual's list of what an allocator has to define, the C23 names,
/// and the operators of C++17.
#[test]
fn nothing_is_missing() {
    let listed = listed();
    for name in [
        "malloc",
        "free",
        "calloc",
        "realloc",
        "aligned_alloc",
        "malloc_usable_size",
        "memalign",
        "posix_memalign",
        "pvalloc",
        "valloc",
        "reallocarray",
        "free_sized",
        "free_aligned_sized",
        "cfree",
    ] {
        assert!(listed.contains_key(name), "{name}");
    }
    let count = |family: &str| listed.values().filter(|other| *other == family).count();
    assert_eq!((count("new"), count("delete")), (8, 12));
}

#[test]
fn the_readme_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi/README.md");
    let text = fs::read_to_string(path).expect("the README is in the source tree");
    let section = text.split("## Exported functions").nth(1).expect("the README has the section");
    let section = section.split("\n#").next().expect("a split has a first part");
    let mut written = BTreeMap::new();
    for line in section.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, family, names, _, _] = cells.as_slice() else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            written.insert(name.to_owned(), (*family).to_owned());
        }
    }
    assert_eq!(written, listed(), "left: README, right: ffi/src/symbols.rs");
}

/// A stray write must not reach what is called: what was looked up lies in pages that are read-only by then.
#[test]
fn no_writable_static_holds_an_address_of_code() {
    /// Compared with what the kernel names, and never called.
    const COMPARED: [&str; 1] = ["FAULT_ENTRY"];
    let Some(program) = compiler::binary("statics", "-O1") else { return };
    let bytes = fs::read(library::path()).expect("the library was built");
    let file = object::File::parse(bytes.as_slice()).expect("the library is an ELF file");
    let is_compared = |offset: u64| {
        file.symbols().any(|symbol| {
            let name = symbol.name().unwrap_or_default();
            let holds = (symbol.address()..symbol.address() + symbol.size()).contains(&offset);
            holds && COMPARED.iter().any(|compared| name.contains(compared))
        })
    };
    for mode in ["harden", "patrol", "hunt"] {
        let options = format!("mode={mode}");
        let run =
            process::run(&mut process::command(&program, Some(library::path()), &options), process::LIMIT);
        assert_eq!(run.end, process::End::Status(0), "{mode}: {}{}", run.stdout, run.stderr);
        for line in run.stdout.lines() {
            let offset = u64::from_str_radix(line.trim_start_matches("0x"), 16).expect("an offset");
            assert!(is_compared(offset), "{mode}: the word at {line} of the library is an address of code");
        }
    }
}
