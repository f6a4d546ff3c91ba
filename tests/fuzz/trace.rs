//! Fuzz targets for stacks: walks over corrupted stacks, and rules read from corrupted unwind tables.
//!
//! A module of the crate's own tests, so that it reaches the parts of `trace`.

use super::objects::Object;
use super::walk::Stack;
use super::walk::{Tables, Walk};
use super::{Frames, objects};
use crate::addr::{Addr, PAGE_SIZE};
use crate::mutate::{Taken, fuzz};
use crate::sys::{loader::Mapped, thread, vm};
use std::vec::Vec;

/// Memory that ends at an inaccessible page.
struct Fenced {
    start: usize,
    bytes: usize,
}

impl Fenced {
    fn new(pages: usize) -> Self {
        let (bytes, whole) = (pages * PAGE_SIZE, (pages + 1) * PAGE_SIZE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping, of which the last page is closed.
        let start = unsafe {
            let start =
                libc::mmap(core::ptr::null_mut(), whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(start.byte_add(bytes), PAGE_SIZE, libc::PROT_NONE), 0);
            start.expose_provenance()
        };
        Self { start, bytes }
    }

    /// All of it: the start of `bytes`, then zeros.
    fn set(&self, bytes: &[u8]) {
        // SAFETY: the mapping is so long, and nobody else has it.
        let all =
            unsafe { core::slice::from_raw_parts_mut(Addr::new(self.start).as_ptr::<u8>(), self.bytes) };
        let len = bytes.len().min(self.bytes);
        all[..len].copy_from_slice(&bytes[..len]);
        all[len..].fill(0);
    }
}

/// Addresses of code with tables, of code without, and of no code.
fn code() -> [usize; 8] {
    [
        code as *const () as usize + 4,
        libc::getpid as *const () as usize + 3,
        libc::qsort as *const () as usize + 40,
        libc::pthread_create as *const () as usize + 100,
        thread::frame as *const () as usize + 1,
        0x1000,
        usize::MAX,
        1 << 47,
    ]
}

/// Whatever is on a stack, a walk reads within it, ends, and finds no more than it was asked for.
#[test]
fn fuzz_stacks() {
    let memory = Fenced::new(4);
    let tables = Tables::map(true).expect("mapping");
    let mut seed = Vec::new();
    for index in 0..64_usize {
        let word = match index % 4 {
            0 => code()[index / 4 % 8],
            1 => memory.start + 8 * (index + 5),
            2 => memory.start + memory.bytes - 16,
            _ => index,
        };
        seed.extend_from_slice(&word.to_le_bytes());
    }
    let words: Vec<[u8; 8]> = code()
        .into_iter()
        .chain((0..12).map(|index| memory.start + index * 56))
        .map(usize::to_le_bytes)
        .collect();
    let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
    fuzz("stacks", &[&seed], &words, |input| {
        let (head, body) = input.split_at(input.len().min(16));
        let mut head = Taken(head);
        memory.set(body);
        let stack = Stack { low: memory.start, end: memory.start + memory.bytes };
        let at = match head.byte() {
            choice @ 0..=199 => code()[usize::from(choice) % 8],
            _ => head.word() as usize,
        };
        let near = |head: &mut Taken<'_>| memory.start + usize::from(head.byte()) * 8;
        let (sp, fp) = (near(&mut head), if head.flag() { near(&mut head) } else { head.word() as usize });
        let depth = usize::from(head.byte() % 40);
        for _ in 0..2 {
            let mut frames = Frames::EMPTY;
            Walk::new(&tables, stack, at, sp, fp).callers(&mut frames, depth);
            assert!(frames.len() <= depth.min(super::MAX_FRAMES));
        }
        let mut frames = Frames::EMPTY;
        let mut walk = Walk::new(&tables, stack, at, sp, fp);
        let registers = core::array::from_fn(|index| memory.start + 24 * index);
        if walk.leave_first(&registers).or_else(|| walk.leave_call()).is_some() {
            walk.callers(&mut frames, depth);
        }
    });
}

/// Whatever the tables of an object say, there is a rule, read within the object.
#[test]
fn fuzz_tables() {
    // SAFETY: asks for a number.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    let memory = Fenced::new(2);
    let mut bytes = std::vec![0; memory.bytes];
    let got = if vdso == 0 { 0 } else { vm::peek(Addr::new(vdso), &mut bytes) };
    let header = eh_frame_hdr(&bytes).unwrap_or(64);
    assert!(got == 0 || header > 64, "the kernel's object has unwind tables");
    let words: [&[u8]; 6] = [
        &[0x1b, 0x03, 0x3b, 0x01],
        &[0x0c, 0x07, 0x08],
        &[0x0f, 0x03, 0x77, 0x08, 0x06],
        b"zR\0",
        b"zPLR\0",
        b"zRS\0",
    ];
    // A count of entries in 64 bits.
    let mut counted = bytes.clone();
    counted[header + 2] = gimli::DW_EH_PE_udata8.0;
    counted[header + 8..header + 16].fill(0x7f);
    fuzz("tables", &[&bytes, &counted], &words, |input| {
        memory.set(input);
        for eh_frame_hdr in [header, usize::from(input.first().copied().unwrap_or(0)) * 16] {
            let mapped = Mapped {
                start: memory.start,
                end: memory.start + memory.bytes,
                eh_frame_hdr: memory.start + eh_frame_hdr,
            };
            let Some(object) = Object::describe(mapped) else { continue };
            for at in [0x600, 0x700, 0xa10, 0xc00, 0, memory.bytes] {
                let rule = objects::rule(&object, memory.start + at);
                // A rule is one word, whose parts can be read.
                let _ = (rule.kind(), rule.base(), rule.offset(), rule.extra(), rule.fp_offset());
                let _ = object.has_code(memory.start + at);
            }
        }
    });
}

/// Where the `.eh_frame_hdr` of an ELF image is, from its start.
fn eh_frame_hdr(image: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u64::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    let (headers, count) = (word(32)?, word(56)? & 0xffff);
    (0..count).find_map(|index| {
        let at = headers + index * 56;
        (word(at)? as u32 == libc::PT_GNU_EH_FRAME).then(|| word(at + 16))?
    })
}
