//! How well the address of the next object is hidden from who knows the one before, measured on the addresses
//! themselves: while a heap grows, and while it lives on slots that come back.
//!
//! A distance of `k` slots between two consecutive objects would come up once in 72 times for the likeliest
//! `k` if slots were handed out in one shuffled batch after the other; `src/README.md` says what is claimed.

use fencepost::Fencepost;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

static HEAP: Fencepost = Fencepost::new();

/// Objects of each measurement: the share of a value that comes up once in 72 times is known to a twentieth.
const OBJECTS: usize = 40_000;
/// Sizes whose slots are at most 1 KiB.
const SIZES: [usize; 5] = [8, 24, 120, 500, 1000];
/// Bits that an address must have for who knows the one before, the likeliest guess taken.
const BITS: f64 = 5.9;
/// Freed bytes that are withheld from reuse unless the options say otherwise, less the batches that threads which free
/// at the same moment let go of too early.
const WITHHELD: usize = (1 << 18) - 2 * 72 * 1024;
/// Bytes of the slots that all tests here freed.
static FREED: AtomicUsize = AtomicUsize::new(0);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a small size")
}

fn allocate(size: usize) -> usize {
    // SAFETY: the size is not zero.
    let address = unsafe { HEAP.alloc(layout(size)) }.addr();
    assert_ne!(address, 0, "there is no memory");
    address
}

fn free(address: usize, size: usize) {
    FREED.fetch_add(slot(size), Ordering::Relaxed);
    // SAFETY: the address is that of an object that `allocate` made with this size, freed once.
    unsafe { HEAP.dealloc(std::ptr::with_exposed_provenance_mut(address), layout(size)) };
}

/// The bits of the likeliest value: what a single best guess is worth.
fn min_entropy(values: impl Iterator<Item = isize>) -> f64 {
    let mut counts = HashMap::new();
    let mut all = 0;
    for value in values {
        *counts.entry(value).or_insert(0u32) += 1;
        all += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    (f64::from(all) / f64::from(most)).log2()
}

fn distances(addresses: &[isize]) -> impl Iterator<Item = isize> {
    addresses.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]))
}

#[test]
fn a_growing_heap_hides_the_next_address() {
    for size in SIZES {
        let objects: Vec<isize> = (0..OBJECTS).map(|_| allocate(size).cast_signed()).collect();
        let bits = min_entropy(distances(&objects));
        println!("{size} bytes, growing: {bits:.2} bits");
        assert!(bits >= BITS, "{size} bytes: the next address is worth {bits:.2} bits");
        objects.into_iter().for_each(|address| free(address.cast_unsigned(), size));
    }
}

/// The bytes of the slot that an object of one of [`SIZES`] gets.
fn slot(size: usize) -> usize {
    let step = if size < 256 { 16 } else { 1 << (size.ilog2() - 3) };
    (size + 8).next_multiple_of(step)
}

/// A queue of live objects: the oldest is freed, a new one allocated.
#[test]
fn slots_that_come_back_hide_the_next_address() {
    for size in SIZES {
        let mut live: VecDeque<usize> = (0..500).map(|_| allocate(size)).collect();
        let mut freed_at = HashMap::new();
        let mut addresses = Vec::new();
        let mut waits = Vec::new();
        let mut least = usize::MAX;
        // The slots that another test freed come first, as many as it has objects, and what is withheld comes last.
        for turn in 0..3 * OBJECTS {
            if let Some(oldest) = live.pop_front() {
                free(oldest, size);
                freed_at.insert(oldest, (turn, FREED.load(Ordering::Relaxed)));
            }
            let new = allocate(size);
            if let Some((then, freed)) = freed_at.remove(&new) {
                waits.push(turn - then);
                least = least.min(FREED.load(Ordering::Relaxed) - freed);
            }
            addresses.push(new.cast_signed());
            live.push_back(new);
        }
        let bits = min_entropy(distances(&addresses));
        let wait = min_entropy(waits.iter().map(|wait| wait.cast_signed()));
        println!(
            "{size} bytes, steady: {bits:.2} bits; a slot comes back after {least} freed bytes at least, {wait:.2} bits"
        );
        assert!(waits.len() > OBJECTS / 2, "{size} bytes: slots do not come back");
        assert!(least >= WITHHELD, "{size} bytes: a slot came back after {least} freed bytes");
        assert!(bits >= BITS, "{size} bytes: the next address is worth {bits:.2} bits");
        assert!(wait >= BITS, "{size} bytes: when a slot comes back is worth {wait:.2} bits");
        live.into_iter().for_each(|address| free(address, size));
    }
}

/// A server that forks a child for each connection: what one child tells must not tell the next one's addresses.
#[test]
fn a_forked_child_goes_its_own_way() {
    const NEXT: usize = 32;
    const SIZE: usize = 200;
    // So that batch and stack are in use.
    let warm: Vec<usize> = (0..200).map(|_| allocate(SIZE)).collect();
    warm.into_iter().for_each(|address| free(address, SIZE));
    let children: Vec<_> =
        (0..2).map(|_| in_child(|| std::array::from_fn::<_, NEXT, _>(|_| allocate(SIZE)))).collect();
    let parent = std::array::from_fn::<_, NEXT, _>(|_| allocate(SIZE));
    let alike =
        |one: &[usize], other: &[usize]| one.iter().zip(other).filter(|(one, other)| one == other).count();
    for (one, other) in [(&children[0], &parent), (&children[1], &parent), (&children[0], &children[1])] {
        let alike = alike(one, other);
        assert!(alike < NEXT / 4, "{alike} of {NEXT} addresses are the same");
    }
}

/// What `action` makes in a forked child.
fn in_child<const N: usize>(action: impl FnOnce() -> [usize; N]) -> [usize; N] {
    let (mut from, mut to) = std::io::pipe().expect("a pipe");
    // SAFETY: the child allocates from `HEAP` alone, which forks with the process, writes and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        let sent = action().iter().all(|address| to.write_all(&address.to_ne_bytes()).is_ok());
        // SAFETY: ends the child without its parent's handlers.
        unsafe { libc::_exit(i32::from(!sent)) };
    }
    let mut status = 0;
    // SAFETY: the status lives for the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
    std::array::from_fn(|_| {
        let mut bytes = [0; size_of::<usize>()];
        from.read_exact(&mut bytes).expect("the child wrote them");
        usize::from_ne_bytes(bytes)
    })
}

/// Where the first slabs of small classes lie, side by side but for a few closed pages, is drawn: this binary executes itself.
#[test]
fn first_slabs_do_not_lie_alike() {
    /// Their first magazine lies in the first page of their slab.
    const SIZES: [usize; 3] = [8, 24, 40];
    const FIRST: &str = "FENCEPOST_FIRST_SLABS";
    if std::env::var_os(FIRST).is_some() {
        let pages = SIZES.map(|size| (allocate(size) >> 12).cast_signed());
        let distances: Vec<isize> = distances(&pages).collect();
        println!("first slabs {distances:?}");
        return;
    }
    let this = std::env::current_exe().expect("the system knows which file this is");
    let told: std::collections::HashSet<String> = (0..6)
        .map(|_| {
            let mut command = std::process::Command::new(&this);
            command.args(["first_slabs_do_not_lie_alike", "--exact", "--nocapture"]).env(FIRST, "1");
            let output = command.output().expect("it can be executed");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split_once("first slabs ")
                .expect("it says so")
                .1
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert!(told.len() > 1, "{told:?}");
}

/// Classes whose slots step by 16 bytes: a size of each, their regions' places compared in MiB. The first slab of each
/// lies beside the others', so more objects are taken than it holds.
#[test]
fn classes_do_not_start_alike() {
    const CLASSES: usize = 16;
    const FIRST_SLAB: usize = 128 << 10;
    let start = |class: usize| {
        let size = class * 16 + 8;
        let last = (0..FIRST_SLAB / (size + 8) + 72).fold(None, |_, _| Some(allocate(size)));
        ((last.expect("some objects") >> 20) & 0x3fff).cast_signed()
    };
    let starts: Vec<isize> = (0..CLASSES).map(start).collect();
    let mut distances: Vec<isize> = distances(&starts).collect();
    distances.sort_unstable();
    distances.dedup();
    assert!(distances.len() > CLASSES / 2, "classes lie at regular distances: {distances:?}");
}
