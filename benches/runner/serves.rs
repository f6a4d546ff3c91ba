//! Whether a preloaded library is where this process has its memory from: by where the functions are, and by glibc's own
//! count of what it has given out.

use std::ffi::{CStr, c_int};
use std::fs;
use std::ops::Range;
use std::process::ExitCode;

/// What every library of this kind replaces.
const FUNCTIONS: [&CStr; 4] = [c"malloc", c"calloc", c"realloc", c"free"];
const OBJECTS: usize = 1000;
const SIZE: usize = 100;

/// The exit status says so to the driver, and standard error why not.
pub fn check(library: &str) -> ExitCode {
    match examine(library) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn examine(library: &str) -> Result<(), String> {
    let mapped = mapped(library)?;
    if mapped.is_empty() {
        return Err("it is not loaded".to_owned());
    }
    for function in FUNCTIONS {
        // SAFETY: a name that ends with a zero, looked up where the program's own calls are.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, function.as_ptr()) } as usize;
        if !mapped.iter().any(|range| range.contains(&address)) {
            return Err(format!("{} is not its own", function.to_string_lossy()));
        }
    }
    let Some(count) = Count::new() else { return Ok(()) };
    let before = count.bytes();
    let mut objects = [std::ptr::null_mut(); OBJECTS];
    for (index, object) in objects.iter_mut().enumerate() {
        // SAFETY: any size may be asked for, and `realloc` of a null pointer is `malloc`.
        *object = unsafe {
            match index % 3 {
                0 => libc::malloc(SIZE),
                1 => libc::calloc(1, SIZE),
                _ => libc::realloc(std::ptr::null_mut(), SIZE),
            }
        };
    }
    let after = count.bytes();
    let failed = objects.contains(&std::ptr::null_mut());
    for object in objects {
        // SAFETY: made in the loop above, given back once.
        unsafe { libc::free(object) };
    }
    match after.saturating_sub(before) {
        _ if failed => Err("it is out of memory".to_owned()),
        0 => Ok(()),
        bytes => Err(format!("glibc gave {bytes} bytes for {OBJECTS} objects")),
    }
}

/// Where the library's file is mapped.
fn mapped(library: &str) -> Result<Vec<Range<usize>>, String> {
    let path = fs::canonicalize(library).map_err(|error| error.to_string())?;
    let path = path.to_string_lossy();
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let range = |line: &str| {
        let (first, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(usize::from_str_radix(first, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    Ok(maps.lines().filter(|line| line.ends_with(path.as_ref())).filter_map(range).collect())
}

/// `mallinfo2` of the libc itself, whatever the preloaded library calls so.
struct Count(unsafe extern "C" fn() -> libc::mallinfo2);

impl Count {
    /// `None` where the libc has no such function.
    fn new() -> Option<Self> {
        let flags: c_int = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
        // SAFETY: the names end with a zero; a library that is loaded already runs no code of its own here.
        let function = unsafe {
            let libc = libc::dlopen(c"libc.so.6".as_ptr(), flags);
            if libc.is_null() {
                return None;
            }
            // By its version: a library may answer `dlsym` itself.
            libc::dlvsym(libc, c"mallinfo2".as_ptr(), c"GLIBC_2.33".as_ptr())
        };
        if function.is_null() {
            return None;
        }
        // SAFETY: glibc documents this signature for the function of this name.
        Some(Self(unsafe {
            std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> libc::mallinfo2>(function)
        }))
    }

    /// What it has given out, in its heap and in mappings of their own.
    fn bytes(&self) -> usize {
        // SAFETY: it takes no argument and only reads its arenas.
        let info = unsafe { (self.0)() };
        info.uordblks + info.hblkhd
    }
}
