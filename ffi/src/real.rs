//! The C library's functions that this library intercepts and then calls or jumps to.
//!
//! They are looked up with those whose arguments are looked at ([`intercept`]), once, when the library is loaded, or earlier
//! if a constructor needs one. Their addresses lie in a page that is read-only from then on. A caller that comes while
//! another thread looks them up, or from within the lookup itself, which may allocate, asks the loader alone or finds none.

#[cfg(target_env = "gnu")]
use crate::{init, intercept, modules};
use core::ffi::c_void;

/// A function.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_env = "gnu"), allow(dead_code))]
pub enum Name {
    Malloc,
    Calloc,
    Memalign,
    Realloc,
    Free,
    UsableSize,
    LongJump,
    Open,
    OpenIn,
    Symbol,
    CreateThread,
    ReallocArray,
    ExecuteInEnvironment,
    Execute,
    ExecuteByPath,
    ExecuteByPathInEnvironment,
    ExecuteFile,
    ExecuteAt,
    Spawn,
    SpawnByPath,
    System,
    OpenPipe,
}

#[cfg(target_env = "gnu")]
const NAMES: [modules::Name<'static>; 22] = [
    modules::Name::new(c"malloc"),
    modules::Name::new(c"calloc"),
    modules::Name::new(c"memalign"),
    modules::Name::new(c"realloc"),
    modules::Name::new(c"free"),
    modules::Name::new(c"malloc_usable_size"),
    modules::Name::new(c"__longjmp_chk"),
    modules::Name::new(c"dlopen"),
    modules::Name::new(c"dlmopen"),
    modules::Name::new(c"dlsym"),
    modules::Name::new(c"pthread_create"),
    modules::Name::new(c"reallocarray"),
    modules::Name::new(c"execve"),
    modules::Name::new(c"execv"),
    modules::Name::new(c"execvp"),
    modules::Name::new(c"execvpe"),
    modules::Name::new(c"fexecve"),
    modules::Name::new(c"execveat"),
    modules::Name::new(c"posix_spawn"),
    modules::Name::new(c"posix_spawnp"),
    modules::Name::new(c"system"),
    modules::Name::new(c"popen"),
];

/// How many there are.
#[cfg(target_env = "gnu")]
pub const COUNT: usize = NAMES.len();

/// The functions' addresses, null where the C library has none; asks the loader for those that `behind` does not tell.
#[cfg(target_env = "gnu")]
pub fn find(behind: Option<&modules::Behind>) -> [usize; COUNT] {
    NAMES.map(|name| {
        let known = behind.and_then(|behind| behind.address(&name));
        known.unwrap_or_else(|| init::next(name.text()).expose_provenance())
    })
}

/// The C library's function; null if it has none.
#[cfg(target_env = "gnu")]
pub fn address(name: Name) -> *mut c_void {
    match (intercept::other(name as usize), name) {
        (Some(found), _) => core::ptr::with_exposed_provenance_mut(found),
        // Somebody looks at this moment, and does not come here from within: the lookup opens nothing.
        (None, name) if name as usize >= Name::Open as usize => {
            NAMES.get(name as usize).map_or(core::ptr::null_mut(), |name| init::next(name.text()))
        }
        (None, _) => core::ptr::null_mut(),
    }
}

/// A static program has one definition of each.
#[cfg(not(target_env = "gnu"))]
pub fn address(_: Name) -> *mut c_void {
    core::ptr::null_mut()
}
