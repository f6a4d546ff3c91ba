//! The bugs. Each goes through `std::alloc` with raw pointers, as `unsafe` code of a program would.
//!
//! Accesses are volatile and pointers opaque, so that the compiler knows nothing about either.

use fencepost::Fencepost;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::thread;

/// Neither zero, as freed memory is, nor odd, as every byte of a canary is.
const BYTE: u8 = 0x5a;
/// Objects of the same size that are allocated and freed until a slot comes back.
const REUSES: usize = 200_000;

/// Commits `bug`, a name with arguments, and returns if nothing stops it.
///
/// # Panics
/// If there is no such bug.
pub fn commit(heap: &Fencepost, bug: &str) {
    let mut words = bug.split(' ');
    let name = words.next().unwrap_or_default();
    let numbers: Vec<usize> = words.map(|word| word.parse().expect("arguments are numbers")).collect();
    match (name, numbers.as_slice()) {
        ("clean", []) => clean(heap),
        ("abort", []) => std::process::abort(),
        ("overflow_write", &[size]) => overflow(size, 1, 0),
        ("overflow_write", &[size, align]) => overflow(size, align, 0),
        ("overflow_write_at", &[size, distance]) => overflow(size, 1, distance),
        ("overflow_write_at", &[size, distance, align]) => overflow(size, align, distance),
        ("overflow_read", &[size]) => {
            let object = Object::new(size, 1);
            read(object.at(size));
            object.free();
        }
        ("overflow_read_often", &[size]) => often(size, |object| read(object.at(size))),
        ("overflow_check", &[size]) => overflow_check(heap, size, 1),
        ("overflow_check", &[size, align]) => overflow_check(heap, size, align),
        ("overflow_realloc", &[size]) => overflow_realloc(size, 1),
        ("overflow_realloc", &[size, align]) => overflow_realloc(size, align),
        ("overflow_thread", &[size]) => elsewhere(move || overflow(size, 1, 0)),
        ("underflow_write", &[size, distance]) => {
            let object = Object::new(size, 1);
            write(object.before(distance));
            object.free();
        }
        ("underflow_read", &[size]) => {
            let object = Object::new(size, 1);
            read(object.before(1));
            object.free();
        }
        ("underflow_read", &[size, distance]) => read(Object::new(size, 1).before(distance)),
        ("underflow_read_often", &[size]) => often(size, |object| read(object.before(1))),
        ("underflow_check", &[size, distance]) => {
            write(Object::new(size, 1).before(distance));
            heap.check();
        }
        ("uaf_read", &[size, offset]) => read(Object::new(size, 1).freed().at(offset)),
        ("uaf_write", &[size, offset]) => write(Object::new(size, 1).freed().at(offset)),
        ("uaf_read_often", &[size]) => {
            for _ in 0..64 {
                read(Object::new(size, 1).freed().at(0));
            }
        }
        ("uaf_late", &[size]) => {
            let object = Object::new(size, 1).freed();
            reuse(size, 500);
            read(object.at(0));
        }
        ("uaf_thread", &[size]) => {
            let object = Object::new(size, 1).freed();
            elsewhere(move || write(object.at(0)));
        }
        ("waf_reuse", &[size, offset]) => {
            write(Object::new(size, 1).freed().at(offset));
            reuse(size, REUSES);
        }
        ("waf_reuse_zeroed", &[size, offset]) => {
            write(Object::new(size, 1).freed().at(offset));
            for _ in 0..REUSES {
                Object::zeroed(size).free();
            }
        }
        ("waf_check", &[size, offset]) => {
            write(Object::new(size, 1).freed().at(offset));
            heap.check();
        }
        ("double_free", &[size]) => Object::new(size, 1).freed().free(),
        ("double_free_thread", &[size]) => {
            let object = Object::new(size, 1).freed();
            elsewhere(move || object.free());
        }
        ("double_free_by_thread", &[size]) => {
            let object = Object::new(size, 1);
            elsewhere(move || object.free());
            object.free();
        }
        ("realloc_freed", &[size]) => {
            Object::new(size, 1).freed().resize(2 * size);
        }
        ("realloc_stale", &[size, new_size]) => {
            let object = Object::new(size, 1);
            let moved = object.resize(new_size);
            write(moved.at(0));
            write(object.at(0));
        }
        ("interior_free", &[size, offset]) => Object::new(size, 1).inside(offset).free(),
        ("interior_realloc", &[size, offset]) => {
            Object::new(size, 1).inside(offset).resize(2 * size);
        }
        ("bad_alignment", &[size, align]) => {
            Object { layout: layout(size, align), ..Object::new(size, 1) }.free();
        }
        ("other_alignment", &[size, align, stated]) => {
            Object { layout: layout(size, stated), ..Object::new(size, align) }.free();
        }
        ("other_alignment_realloc", &[size, align, stated]) => {
            Object { layout: layout(size, stated), ..Object::new(size, align) }.resize(size + 1);
        }
        ("bad_size", &[size, stated]) => Object::new(size, 1).stated(stated).free(),
        ("bad_size_realloc", &[size, stated]) => {
            Object::new(size, 1).stated(stated).resize(3 * size);
        }
        ("free_stack", []) => {
            let mut local = [BYTE; 64];
            Object::claimed(local.as_mut_ptr()).free();
            black_box(&local);
        }
        ("realloc_stack", []) => {
            let mut local = [BYTE; 64];
            Object::claimed(local.as_mut_ptr()).resize(128);
            black_box(&local);
        }
        ("free_static", []) => {
            static TABLE: [u8; 64] = [BYTE; 64];
            Object::claimed(TABLE.as_ptr().cast_mut()).free();
        }
        ("free_function", []) => Object::claimed(commit as *mut u8).free(),
        ("free_wild", &[address]) => Object::claimed(std::ptr::without_provenance_mut(address)).free(),
        _ => panic!("there is no bug {bug:?}"),
    }
}

/// An object, or what the program takes for one.
#[derive(Clone, Copy)]
struct Object {
    pointer: *mut u8,
    layout: Layout,
}

// SAFETY: a pointer that one thread at a time uses.
unsafe impl Send for Object {}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("the table's sizes and alignments are small")
}

impl Object {
    /// A live object, its bytes written.
    fn new(size: usize, align: usize) -> Self {
        let layout = layout(size, align);
        // SAFETY: no size in the table is zero.
        let pointer = black_box(unsafe { alloc(layout) });
        assert!(!pointer.is_null() && pointer.addr().is_multiple_of(align));
        // SAFETY: the object was just allocated with this size.
        unsafe { pointer.write_bytes(BYTE, size) };
        Self { pointer, layout }
    }

    fn zeroed(size: usize) -> Self {
        let layout = layout(size, 1);
        // SAFETY: no size in the table is zero.
        Self { pointer: black_box(unsafe { alloc_zeroed(layout) }), layout }
    }

    /// Something that is no object.
    fn claimed(pointer: *mut u8) -> Self {
        Self { pointer: black_box(pointer), layout: layout(64, 1) }
    }

    fn at(self, offset: usize) -> *mut u8 {
        black_box(self.pointer.wrapping_add(offset))
    }

    fn before(self, distance: usize) -> *mut u8 {
        black_box(self.pointer.wrapping_sub(distance))
    }

    fn inside(self, offset: usize) -> Self {
        Self { pointer: self.at(offset), ..self }
    }

    fn stated(self, size: usize) -> Self {
        Self { layout: layout(size, 1), ..self }
    }

    fn free(self) {
        // SAFETY: none where this is the bug: the allocator has to refuse it.
        unsafe { dealloc(black_box(self.pointer), self.layout) };
    }

    fn freed(self) -> Self {
        self.free();
        self
    }

    fn resize(self, size: usize) -> Self {
        // SAFETY: as for `free`.
        let pointer = black_box(unsafe { realloc(black_box(self.pointer), self.layout, size) });
        Self { pointer, layout: layout(size, self.layout.align()) }
    }
}

fn read(pointer: *mut u8) {
    // SAFETY: none where this is the bug: a guard has to stop it, or nothing does and it reads memory of
    // the allocator's.
    black_box(unsafe { pointer.read_volatile() });
}

fn write(pointer: *mut u8) {
    // SAFETY: as for `read`; what it writes is a canary or freed memory.
    unsafe { pointer.write_volatile(BYTE) };
}

fn overflow(size: usize, align: usize, distance: usize) {
    let object = Object::new(size, align);
    write(object.at(size + distance));
    object.free();
}

fn overflow_check(heap: &Fencepost, size: usize, align: usize) {
    write(Object::new(size, align).at(size));
    heap.check();
}

fn overflow_realloc(size: usize, align: usize) {
    let object = Object::new(size, align);
    write(object.at(size));
    object.resize(4 * size + 10_000);
}

fn often(size: usize, bug: impl Fn(Object)) {
    for _ in 0..64 {
        let object = Object::new(size, 1);
        bug(object);
        object.free();
    }
}

fn reuse(size: usize, times: usize) {
    for _ in 0..times {
        Object::new(size, 1).free();
    }
}

fn elsewhere(action: impl FnOnce() + Send + 'static) {
    thread::spawn(action).join().expect("a bug does not panic");
}

/// Correct use of everything that the bugs use.
fn clean(heap: &Fencepost) {
    for align in [1, 2, 16, 64, 4096] {
        for size in [1, 8, 13, 16, 100, 1000, 4095, 4096, 5000, 300_000] {
            let object = Object::new(size, align);
            read(object.at(size - 1));
            let other = Object::zeroed(size);
            let grown = object.resize(2 * size);
            write(grown.at(2 * size - 1));
            assert_eq!(heap.check(), 0);
            elsewhere(move || grown.resize(size.div_ceil(2)).free());
            other.free();
        }
        reuse(100, 1000);
    }
    assert_eq!(heap.check(), 0);
}
