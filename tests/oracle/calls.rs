//! The functions under test: those of C and C++, as this process's symbols have them, and `GlobalAlloc`.

use fencepost::Fencepost;
use fencepost::addr::Addr;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{CStr, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What stands before the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// The C library's functions and C++'s operators, which a preloaded library brings.
    C,
    /// [`Fencepost`] itself.
    Rust,
}

/// Who may free an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Malloc,
    /// `Malloc` with a stated alignment.
    Aligned,
    New,
    NewArray,
    NewAligned,
    NewArrayAligned,
    Rust,
}

impl Family {
    const ALL: [Self; 7] = [
        Self::Malloc,
        Self::Aligned,
        Self::New,
        Self::NewArray,
        Self::NewAligned,
        Self::NewArrayAligned,
        Self::Rust,
    ];

    /// As a number, for memory that threads share.
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The family with that number.
    pub fn of(number: usize) -> Self {
        Self::ALL[number]
    }
}

/// A live object as its functions see it.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    pub address: usize,
    pub size: usize,
    /// As it was stated; 0 if it was not.
    pub align: usize,
    pub family: Family,
    /// Whether it must read as zero.
    pub zeroed: bool,
}

static HEAP: Fencepost = Fencepost::new();

unsafe extern "C" {
    fn memalign(align: usize, size: usize) -> *mut c_void;
    fn valloc(size: usize) -> *mut c_void;
    fn pvalloc(size: usize) -> *mut c_void;
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(pointer: *mut c_void);
    fn reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void;
    fn strndup(text: *const i8, count: usize) -> *mut c_void;
}

/// The address of a symbol that the C library has not.
///
/// # Panics
/// If nobody brings it.
fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends in NUL.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!address.is_null(), "{name:?} is not there");
    address
}

/// Held by a thread that looks a function up or forks: a child would wait for ever for what another thread does with the loader's
/// locks. Handlers look nothing up.
pub static LOOKUPS: Mutex<()> = Mutex::new(());

/// The address of a function, looked up once.
fn look_up(known: &AtomicUsize, name: &CStr) -> usize {
    if known.load(Ordering::Relaxed) == 0 {
        // A wait for the turn is not what the call does to it.
        let errno = super::errno();
        let turn = LOOKUPS.lock().expect("no panic");
        known.store(symbol(name).expose_provenance(), Ordering::Relaxed);
        drop(turn);
        super::set_errno(errno);
    }
    known.load(Ordering::Relaxed)
}

/// The function of this name with this type.
macro_rules! function {
    ($name:literal as fn($($argument:ty),*) $(-> $result:ty)?) => {{
        static ADDRESS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let address = look_up(&ADDRESS, $name);
        let pointer = std::ptr::with_exposed_provenance::<()>(address);
        // SAFETY: the symbol is a function of this type, as its declaration has it.
        #[allow(unused_unsafe)]
        unsafe {
            std::mem::transmute::<*const (), unsafe extern "C" fn($($argument),*) $(-> $result)?>(pointer)
        }
    }};
}

/// The size that `reallocarray` and `calloc` are asked for in parts: the parts.
fn parts(size: usize) -> (usize, usize) {
    for count in [7, 3, 2] {
        if size.is_multiple_of(count) && size > 0 {
            return (count, size / count);
        }
    }
    (size, 1)
}

/// A fresh object. `how` chooses the function and the alignment. `None` without memory.
pub fn allocate(front: Front, how: usize, size: usize) -> Option<Object> {
    let align = 16_usize << (how >> 8 & 0xf).saturating_sub(4).min(9);
    match front {
        Front::Rust => allocate_rust(how, align >> (how >> 12 & 0x3), size.max(1)),
        Front::C => allocate_c(how % 32, align, size),
    }
}

fn allocate_rust(how: usize, align: usize, size: usize) -> Option<Object> {
    let layout = Layout::from_size_align(size, align).ok()?;
    let zeroed = how.is_multiple_of(3);
    // SAFETY: the size is not zero.
    let pointer = unsafe { if zeroed { HEAP.alloc_zeroed(layout) } else { HEAP.alloc(layout) } };
    let address = pointer.expose_provenance();
    (address != 0).then_some(Object { address, size, align, family: Family::Rust, zeroed })
}

fn allocate_c(how: usize, align: usize, size: usize) -> Option<Object> {
    let null = std::ptr::null_mut();
    let plain = |pointer: *mut c_void| (pointer, size, 0, Family::Malloc, false);
    let aligned = |pointer: *mut c_void, size, align| (pointer, size, align, Family::Aligned, false);
    let new = |pointer: *mut c_void, align, family| (pointer, size, align, family, false);
    let tag = 0_u8;
    // SAFETY: allocations need nothing but their arguments' types; `strndup` copies `size` bytes of a text that
    // is as long; the nothrow tag of C++ is never looked at.
    let (pointer, size, align, family, zeroed) = unsafe {
        match how {
            0..=6 => plain(libc::malloc(size)),
            7..=8 => (libc::calloc(1, size), size, 0, Family::Malloc, true),
            9..=10 => {
                let (count, part) = parts(size);
                (libc::calloc(count, part), size, 0, Family::Malloc, true)
            }
            11 => plain(libc::realloc(null, size)),
            12 => {
                let (count, part) = parts(size);
                plain(reallocarray(null, count, part))
            }
            13 => aligned(memalign(align, size), size, align),
            14 => aligned(libc::aligned_alloc(align, size), size, align),
            15 | 16 => {
                let mut result = null;
                let error = libc::posix_memalign(&raw mut result, align, size);
                aligned(if error == 0 { result } else { null }, size, align)
            }
            17 => aligned(valloc(size), size, 4096),
            18 => {
                let pointer = pvalloc(size);
                aligned(pointer, size.next_multiple_of(4096), 4096)
            }
            19 => plain(__libc_malloc(size)),
            20 => (__libc_calloc(1, size), size, 0, Family::Malloc, true),
            21 => aligned(__libc_memalign(align, size), size, align),
            22 | 23 if size > 0 && size < TEXT.len() => plain(strndup(TEXT.as_ptr().cast(), size - 1)),
            24 => new(function!(c"_Znwm" as fn(usize) -> *mut c_void)(size), 0, Family::New),
            25 => new(function!(c"_Znam" as fn(usize) -> *mut c_void)(size), 0, Family::NewArray),
            26 => {
                let call = function!(c"_ZnwmRKSt9nothrow_t" as fn(usize, *const u8) -> *mut c_void);
                new(call(size, &raw const tag), 0, Family::New)
            }
            27 => {
                let call = function!(c"_ZnamRKSt9nothrow_t" as fn(usize, *const u8) -> *mut c_void);
                new(call(size, &raw const tag), 0, Family::NewArray)
            }
            28 => {
                let call = function!(c"_ZnwmSt11align_val_t" as fn(usize, usize) -> *mut c_void);
                new(call(size, align), align, Family::NewAligned)
            }
            29 => {
                let call = function!(c"_ZnamSt11align_val_t" as fn(usize, usize) -> *mut c_void);
                new(call(size, align), align, Family::NewArrayAligned)
            }
            _ => plain(libc::malloc(size)),
        }
    };
    let address = pointer.expose_provenance();
    (address != 0).then_some(Object { address, size, align, family, zeroed })
}

/// What `strndup` copies.
static TEXT: [u8; 3_000] = [b'x'; 3_000];

/// Frees an object by one of its family's functions.
pub fn free(object: &Object, how: usize) {
    let Object { address, size, align, .. } = *object;
    let pointer = std::ptr::with_exposed_provenance_mut::<c_void>(address);
    let tag = (&raw const TEXT).cast::<u8>();
    // SAFETY: the object is live and the caller's, and of this family, size and alignment.
    unsafe {
        match (object.family, how % 6) {
            (Family::Rust, _) => {
                HEAP.dealloc(pointer.cast(), Layout::from_size_align_unchecked(size, align));
            }
            (Family::Malloc, 0) => function!(c"free_sized" as fn(*mut c_void, usize))(pointer, size),
            (Family::Aligned, 0) => {
                function!(c"free_aligned_sized" as fn(*mut c_void, usize, usize))(pointer, align, size);
            }
            (Family::Malloc | Family::Aligned, 1) => __libc_free(pointer),
            (Family::Malloc | Family::Aligned, 2) => function!(c"cfree" as fn(*mut c_void))(pointer),
            (Family::Malloc | Family::Aligned, 3) => {
                let result = libc::realloc(pointer, 0);
                assert!(result.is_null(), "realloc to nothing gave {result:p}");
            }
            (Family::Malloc | Family::Aligned, _) => libc::free(pointer),
            (Family::New, 0 | 1) => function!(c"_ZdlPv" as fn(*mut c_void))(pointer),
            (Family::New, 2 | 3) => function!(c"_ZdlPvm" as fn(*mut c_void, usize))(pointer, size),
            (Family::New, _) => {
                function!(c"_ZdlPvRKSt9nothrow_t" as fn(*mut c_void, *const u8))(pointer, tag);
            }
            (Family::NewArray, 0 | 1) => function!(c"_ZdaPv" as fn(*mut c_void))(pointer),
            (Family::NewArray, 2 | 3) => function!(c"_ZdaPvm" as fn(*mut c_void, usize))(pointer, size),
            (Family::NewArray, _) => {
                function!(c"_ZdaPvRKSt9nothrow_t" as fn(*mut c_void, *const u8))(pointer, tag);
            }
            (Family::NewAligned, 0 | 1) => {
                function!(c"_ZdlPvSt11align_val_t" as fn(*mut c_void, usize))(pointer, align);
            }
            (Family::NewAligned, 2 | 3) => {
                let call = function!(c"_ZdlPvmSt11align_val_t" as fn(*mut c_void, usize, usize));
                call(pointer, size, align);
            }
            (Family::NewAligned, _) => {
                let call =
                    function!(c"_ZdlPvSt11align_val_tRKSt9nothrow_t" as fn(*mut c_void, usize, *const u8));
                call(pointer, align, tag);
            }
            (Family::NewArrayAligned, 0 | 1) => {
                function!(c"_ZdaPvSt11align_val_t" as fn(*mut c_void, usize))(pointer, align);
            }
            (Family::NewArrayAligned, 2 | 3) => {
                let call = function!(c"_ZdaPvmSt11align_val_t" as fn(*mut c_void, usize, usize));
                call(pointer, size, align);
            }
            (Family::NewArrayAligned, _) => {
                let call =
                    function!(c"_ZdaPvSt11align_val_tRKSt9nothrow_t" as fn(*mut c_void, usize, *const u8));
                call(pointer, align, tag);
            }
        }
    }
}

/// Frees an address as one of the family's plain functions does: for bugs.
pub fn free_address(object: &Object, address: usize) {
    let family = match object.family {
        Family::Aligned => Family::Malloc,
        other => other,
    };
    free(&Object { address, family, ..*object }, 5);
}

/// The object with another size, not 0; `None` if its family has no such function.
pub fn resize(object: &Object, how: usize, size: usize) -> Option<Object> {
    let Object { address, align, .. } = *object;
    let pointer = std::ptr::with_exposed_provenance_mut::<c_void>(address);
    // SAFETY: the object is live and the caller's, and of this family, size and alignment; the size is not 0.
    let new = unsafe {
        match (object.family, how % 4) {
            (Family::Rust, _) => {
                let layout = Layout::from_size_align_unchecked(object.size, align);
                HEAP.realloc(pointer.cast(), layout, size).cast()
            }
            (Family::Malloc | Family::Aligned, 0) => {
                let (count, part) = parts(size);
                reallocarray(pointer, count, part)
            }
            (Family::Malloc | Family::Aligned, 1) => __libc_realloc(pointer, size),
            (Family::Malloc | Family::Aligned, _) => libc::realloc(pointer, size),
            _ => return None,
        }
    };
    let address = new.expose_provenance();
    let (align, family) = match object.family {
        Family::Rust => (align, Family::Rust),
        _ => (0, Family::Malloc),
    };
    Some(Object { address, size, align, family, zeroed: false })
}

/// What the heap says of the object's size.
pub fn size_of(front: Front, address: usize) -> usize {
    match front {
        Front::Rust => fencepost::heap::size_of(Addr::new(address)).unwrap_or(usize::MAX),
        Front::C => {
            // SAFETY: the object is live.
            unsafe { libc::malloc_usable_size(std::ptr::with_exposed_provenance_mut(address)) }
        }
    }
}

/// The live object that an address lies in: its start and size.
pub fn bounds(front: Front, address: usize) -> Option<(usize, usize)> {
    match front {
        Front::Rust => {
            let range = fencepost::bounds(std::ptr::with_exposed_provenance::<u8>(address))?;
            Some((range.start.addr(), range.end.addr() - range.start.addr()))
        }
        Front::C => {
            let call = function!(c"fencepost_bounds" as fn(usize, *mut usize, *mut usize) -> c_int);
            let (mut start, mut size) = (0, 0);
            // SAFETY: the places for the answers are live.
            let found = unsafe { call(address, &raw mut start, &raw mut size) };
            (found == 1).then_some((start, size))
        }
    }
}

/// What an access to so many bytes would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Fine,
    Overflow,
    Poisoned,
    Other,
}

/// What the heap says of an access.
pub fn ask(front: Front, address: usize, size: usize) -> Answer {
    use fencepost::fault::Kind;
    match front {
        Front::Rust => match fencepost::check(std::ptr::with_exposed_provenance::<u8>(address), size) {
            Ok(()) => Answer::Fine,
            Err(Kind::HeapBufferOverflow) => Answer::Overflow,
            Err(Kind::UseAfterPoison) => Answer::Poisoned,
            Err(_) => Answer::Other,
        },
        Front::C => {
            let call = function!(c"fencepost_check_range" as fn(usize, usize) -> c_int);
            // SAFETY: any address and size may be asked for.
            match unsafe { call(address, size) } {
                0 => Answer::Fine,
                1 => Answer::Overflow,
                5 => Answer::Poisoned,
                _ => Answer::Other,
            }
        }
    }
}

/// Poisons a part of an object, or takes it back; whether it was done.
pub fn poison(front: Front, back: bool, address: usize, size: usize) -> bool {
    let pointer = std::ptr::with_exposed_provenance::<u8>(address);
    match (front, back) {
        // SAFETY: the caller gave the contents up.
        (Front::Rust, false) => unsafe { fencepost::poison(pointer, size).is_some() },
        (Front::Rust, true) => fencepost::unpoison(pointer, size).is_some(),
        (Front::C, false) => {
            // SAFETY: as for Rust: the caller gave the contents up.
            unsafe { function!(c"fencepost_poison" as fn(usize, usize) -> c_int)(address, size) == 1 }
        }
        (Front::C, true) => {
            // SAFETY: the range is a part of a live object.
            unsafe { function!(c"fencepost_unpoison" as fn(usize, usize) -> c_int)(address, size) == 1 }
        }
    }
}

/// The heap's errors, by its own check.
pub fn check(front: Front) -> usize {
    match front {
        Front::Rust => HEAP.check(),
        Front::C => {
            // SAFETY: the function takes nothing.
            unsafe { function!(c"fencepost_check" as fn() -> c_int)() as usize }
        }
    }
}

/// Gives back what is unused.
pub fn trim(front: Front) {
    match front {
        Front::Rust => {
            fencepost::heap::trim();
        }
        Front::C => {
            // SAFETY: the function takes a number.
            unsafe { libc::malloc_trim(0) };
        }
    }
}

/// Asks for figures; whether they can be.
pub fn figures(front: Front) -> bool {
    match front {
        Front::Rust => {
            let usage = fencepost::heap::usage();
            usage.slab.bytes <= usage.slab.held
        }
        Front::C => {
            // SAFETY: the functions take nothing, or a stream that there is none of with an option that is refused first.
            unsafe {
                let info = libc::mallinfo2();
                libc::mallinfo();
                function!(c"malloc_info" as fn(c_int, usize) -> c_int)(1, 0) == libc::EINVAL
                    && info.uordblks <= info.arena
            }
        }
    }
}

/// Sizes that nobody can have: whether none was given, and with the right error.
pub fn absurd(front: Front, how: usize) -> bool {
    let half = usize::MAX / 2;
    match front {
        Front::Rust => {
            let layout = Layout::from_size_align(half - 4_096, 16).expect("less than half of all addresses");
            // SAFETY: the size is not zero.
            unsafe { HEAP.alloc(layout).is_null() }
        }
        Front::C => {
            let null = std::ptr::null_mut();
            super::set_errno(0);
            // The sizes are hidden from the compiler, which may take such calls away.
            let hidden = std::hint::black_box(half);
            // SAFETY: allocations need nothing but their arguments' types.
            let pointer = unsafe {
                match how % 7 {
                    0 => libc::malloc(hidden + 1),
                    1 => libc::calloc(hidden, 3),
                    2 => reallocarray(null, hidden, 5),
                    3 => libc::realloc(null, hidden + 1),
                    4 => memalign(64, hidden + 1),
                    5 => libc::malloc(hidden * 2 + 1 - how % 40),
                    _ => pvalloc(hidden * 2 - how % 5_000),
                }
            };
            pointer.is_null() && super::errno() == libc::ENOMEM
        }
    }
}
