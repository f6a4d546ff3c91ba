//! The allocator workloads.
//!
//! Every object is touched in its first byte, since memory that nobody touches is no program's cost. An iteration is
//! one object made and given back, except in `grow` (one object grown from 16 B to 1 MiB), `inplace` (two `realloc`
//! calls), `million` (a million 64-byte objects at once) and `fork` (a child that ends at once).

use super::heap::{Api, PLAIN};
use super::{Reply, Shape, Work};
use std::hint::black_box;
use std::marker::PhantomData;
use std::process::exit;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

const LIVE: usize = 10_000;
const LIVE_PER_THREAD: usize = 128;
const MANY_PER_THREAD: usize = 5_000;
const BATCH: usize = 64;
const RING: usize = 1024;
const GROWN: usize = 1 << 20;
const MILLION: usize = 1_000_000;

pub fn make<A: Api>(name: &str, shape: Shape) -> Option<Box<dyn Work>> {
    let door = PhantomData::<A>;
    Some(match name {
        "null" => Box::new(Null),
        "pair" => Box::new(Pair(shape, door)),
        "batch" => Box::new(Batch(shape, door)),
        "random" => Box::new(Random::<A>::new()),
        "calloc" => Box::new(Zeroed(shape, door)),
        "grow" => Box::new(Grow(door)),
        "inplace" => Box::new(InPlace(shape, door)),
        "cross" => Box::new(Cross(shape, door)),
        "mixed" => Box::new(Mixed(shape, door)),
        "live" => Box::new(Many(shape, door)),
        "million" => Box::new(Million::<A>::new()),
        "fork" => Box::new(Fork::<A>::new(shape)),
        _ => return None,
    })
}

/// Makes an object and touches it; running out ends the process, which the driver reports as a failed cell.
#[inline(always)]
fn acquire<A: Api>(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the works ask for sizes from 16 B to 1 MiB and alignments that the driver's table holds as powers of two.
    touch(unsafe { A::acquire(size, align) })
}

#[inline(always)]
fn touch(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        eprintln!("runner: out of memory");
        exit(3);
    }
    // SAFETY: the pointer came from the allocator with a size of at least one byte, and no other thread has it yet.
    unsafe { pointer.write_volatile(1) };
    black_box(pointer)
}

/// Gives an object back.
///
/// # Safety
///
/// `pointer` came from [`acquire`] of the same door with this size and alignment and is not used again.
#[inline(always)]
unsafe fn release<A: Api>(pointer: *mut u8, size: usize, align: usize) {
    // SAFETY: exactly the caller's promise.
    unsafe { A::release(pointer, size, align) }
}

/// Runs `body` once on each of `threads` threads that start together: nanoseconds from the first start to the last end.
pub fn race(threads: usize, body: impl Fn(usize) + Sync) -> u64 {
    race_with(threads, |index| index, |index| body(*index), |_| {})
}

/// As [`race`], with a state for each thread that is made before the start and taken apart after the end.
fn race_with<State>(
    threads: usize,
    before: impl Fn(usize) -> State + Sync,
    body: impl Fn(&mut State) + Sync,
    after: impl Fn(State) + Sync,
) -> u64 {
    let timed = |index: usize, barrier: &Barrier| {
        let mut state = before(index);
        barrier.wait();
        let start = Instant::now();
        body(&mut state);
        let end = Instant::now();
        after(state);
        (start, end)
    };
    let barrier = Barrier::new(threads);
    if threads == 1 {
        let (start, end) = timed(0, &barrier);
        return (end - start).as_nanos() as u64;
    }
    let span = Mutex::new(None::<(Instant, Instant)>);
    std::thread::scope(|scope| {
        for index in 0..threads {
            let (barrier, span, timed) = (&barrier, &span, &timed);
            scope.spawn(move || {
                let (start, end) = timed(index, barrier);
                if let Ok(mut span) = span.lock() {
                    *span =
                        Some(span.map_or((start, end), |(first, last)| (first.min(start), last.max(end))));
                }
            });
        }
    });
    span.into_inner().ok().flatten().map_or(0, |(start, end)| (end - start).as_nanos() as u64)
}

pub fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

pub fn reply(nanos: u64) -> Reply {
    Reply { nanos, extra: [0; 3] }
}

/// Marsaglia's xorshift: the sizes need spread, not quality, and the generator must cost little.
struct Rng(u64);

impl Rng {
    #[inline(always)]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 16 B to 1 KiB, every power of two about as often as the next.
    #[inline(always)]
    fn size(&mut self) -> usize {
        let word = self.next();
        let span = 16usize << (word % 7);
        (16 + (word >> 32) as usize % span).min(1024)
    }

    /// 16 B to 1 KiB, every size as often as the next.
    #[inline(always)]
    fn even_size(&mut self) -> usize {
        16 + (self.next() >> 32) as usize % (1024 - 16 + 1)
    }
}

/// The loop and the touch without an allocator, to subtract from instruction counts.
struct Null;

impl Work for Null {
    fn run(&mut self, iterations: u64) -> Reply {
        let mut byte = 0u8;
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(touch(&raw mut byte));
        }
        reply(nanos(start))
    }
}

struct Pair<A>(Shape, PhantomData<A>);

impl<A: Api> Work for Pair<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let Shape { size, align, threads } = self.0;
        reply(race(threads, |_| {
            for _ in 0..iterations {
                let pointer = acquire::<A>(size, align);
                // SAFETY: made in the line above, given back once.
                unsafe { release::<A>(pointer, size, align) };
            }
        }))
    }
}

struct Batch<A>(Shape, PhantomData<A>);

impl<A: Api> Work for Batch<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let Shape { size, align, .. } = self.0;
        let batches = iterations.div_ceil(BATCH as u64);
        let mut objects = [std::ptr::null_mut(); BATCH];
        let start = Instant::now();
        for _ in 0..batches {
            for object in &mut objects {
                *object = acquire::<A>(size, align);
            }
            for &object in &objects {
                // SAFETY: made in the loop above, given back once.
                unsafe { release::<A>(object, size, align) };
            }
        }
        let spent = u128::from(nanos(start));
        reply((spent * u128::from(iterations) / u128::from(batches.max(1) * BATCH as u64)) as u64)
    }
}

/// One object of a set that lives on.
#[derive(Clone, Copy)]
struct Live {
    pointer: *mut u8,
    size: usize,
}

#[inline(always)]
fn fill<A: Api>(size: usize) -> Live {
    Live { pointer: acquire::<A>(size, PLAIN), size }
}

/// Replaces `iterations` objects of `live`, each chosen at random, by ones of another random size.
#[inline(always)]
fn churn<A: Api>(live: &mut [Live], rng: &mut Rng, iterations: u64, size: impl Fn(&mut Rng) -> usize) {
    for _ in 0..iterations {
        let index = (rng.next() >> 33) as usize % live.len();
        let old = live[index];
        // SAFETY: `fill` made the object with this size, and the slot is overwritten at once.
        unsafe { release::<A>(old.pointer, old.size, PLAIN) };
        live[index] = fill::<A>(size(rng));
    }
}

struct Random<A> {
    live: Vec<Live>,
    rng: Rng,
    door: PhantomData<A>,
}

impl<A: Api> Random<A> {
    fn new() -> Self {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        let mut live: Vec<Live> = (0..LIVE).map(|_| fill::<A>(rng.size())).collect();
        churn::<A>(&mut live, &mut rng, LIVE as u64, Rng::size);
        Self { live, rng, door: PhantomData }
    }
}

impl<A: Api> Work for Random<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let start = Instant::now();
        churn::<A>(&mut self.live, &mut self.rng, iterations, Rng::size);
        reply(nanos(start))
    }
}

/// The same mixture on several threads, each with its own live objects.
struct Mixed<A>(Shape, PhantomData<A>);

impl<A: Api> Work for Mixed<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let before = |index: usize| {
            let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1));
            let live: [Live; LIVE_PER_THREAD] = std::array::from_fn(|_| fill::<A>(rng.size()));
            (live, rng)
        };
        let body = |state: &mut ([Live; LIVE_PER_THREAD], Rng)| {
            churn::<A>(&mut state.0, &mut state.1, iterations, Rng::size);
        };
        let after = |(live, _): ([Live; LIVE_PER_THREAD], Rng)| {
            for object in live {
                // SAFETY: the last owner of each object gives it back.
                unsafe { release::<A>(object.pointer, object.size, PLAIN) };
            }
        };
        reply(race_with(self.0.threads, before, body, after))
    }
}

/// Every size as often as the next, and more objects on each thread than its second-level cache holds.
struct Many<A>(Shape, PhantomData<A>);

impl<A: Api> Work for Many<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let before = |index: usize| {
            let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1));
            let mut live: Vec<Live> = (0..MANY_PER_THREAD).map(|_| fill::<A>(rng.even_size())).collect();
            // Until the order in which they lie is no longer that in which they were made.
            churn::<A>(&mut live, &mut rng, 4 * MANY_PER_THREAD as u64, Rng::even_size);
            (live, rng)
        };
        let body = |(live, rng): &mut (Vec<Live>, Rng)| churn::<A>(live, rng, iterations, Rng::even_size);
        let after = |(live, _): (Vec<Live>, Rng)| {
            for object in live {
                // SAFETY: the last owner of each object gives it back.
                unsafe { release::<A>(object.pointer, object.size, PLAIN) };
            }
        };
        reply(race_with(self.0.threads, before, body, after))
    }
}

struct Zeroed<A>(Shape, PhantomData<A>);

impl<A: Api> Work for Zeroed<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let size = self.0.size;
        let start = Instant::now();
        for _ in 0..iterations {
            // SAFETY: the driver's table holds no size of zero; the object is given back once.
            unsafe {
                let pointer = touch(A::zeroed(size));
                release::<A>(pointer, size, PLAIN);
            }
        }
        reply(nanos(start))
    }
}

struct Grow<A>(PhantomData<A>);

impl<A: Api> Work for Grow<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let start = Instant::now();
        for _ in 0..iterations {
            let mut size = PLAIN;
            let mut pointer = acquire::<A>(size, PLAIN);
            while size < GROWN {
                // SAFETY: `pointer` is live with `size` bytes; the old value is overwritten by what replaces it.
                pointer = touch(unsafe { A::resize(pointer, size, size * 2) });
                size *= 2;
            }
            // SAFETY: the last result of `resize`, with the size asked for there.
            unsafe { release::<A>(pointer, size, PLAIN) };
        }
        reply(nanos(start))
    }
}

/// `realloc` by a few bytes down and up again, which no allocator should move for.
struct InPlace<A>(Shape, PhantomData<A>);

impl<A: Api> Work for InPlace<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let size = self.0.size;
        let mut pointer = acquire::<A>(size, PLAIN);
        let start = Instant::now();
        for _ in 0..iterations {
            // SAFETY: each call names the size the object has, and the result replaces the pointer.
            unsafe {
                pointer = touch(A::resize(pointer, size, size - 4));
                pointer = touch(A::resize(pointer, size - 4, size));
            }
        }
        let spent = nanos(start);
        // SAFETY: the live object with its present size.
        unsafe { release::<A>(pointer, size, PLAIN) };
        reply(spent)
    }
}

/// One thread makes, another gives back; they meet in a ring whose slots are null when empty.
struct Cross<A>(Shape, PhantomData<A>);

impl<A: Api> Work for Cross<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let Shape { size, align, .. } = self.0;
        let ring: [AtomicPtr<u8>; RING] = [const { AtomicPtr::new(std::ptr::null_mut()) }; RING];
        let wait_for = |slot: &AtomicPtr<u8>, ready: fn(*mut u8) -> bool| {
            for round in 0u32.. {
                let pointer = slot.load(Ordering::Acquire);
                if ready(pointer) {
                    return pointer;
                }
                if round > 100 { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
            std::ptr::null_mut()
        };
        reply(race(2, |index| {
            for step in 0..iterations {
                let slot = &ring[step as usize % RING];
                if index == 0 {
                    let pointer = acquire::<A>(size, align);
                    wait_for(slot, <*mut u8>::is_null);
                    slot.store(pointer, Ordering::Release);
                } else {
                    let pointer = wait_for(slot, |pointer| !pointer.is_null());
                    slot.store(std::ptr::null_mut(), Ordering::Release);
                    // SAFETY: the producer stored it with this size and alignment and keeps no copy; the slot is empty.
                    unsafe { release::<A>(pointer, size, align) };
                }
            }
        }))
    }
}

/// A million 64-byte objects: extra numbers are ns for all frees, KiB resident with them alive, KiB after.
struct Million<A> {
    objects: Vec<*mut u8>,
    door: PhantomData<A>,
}

impl<A: Api> Million<A> {
    fn new() -> Self {
        Self { objects: vec![std::ptr::dangling_mut(); MILLION], door: PhantomData }
    }
}

impl<A: Api> Work for Million<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let mut total = Reply::default();
        for _ in 0..iterations {
            let before = resident_kib();
            let start = Instant::now();
            for object in &mut self.objects {
                *object = acquire::<A>(64, PLAIN);
            }
            total.nanos += nanos(start);
            total.extra[1] = resident_kib().saturating_sub(before);
            let start = Instant::now();
            for &object in &self.objects {
                // SAFETY: made in the loop above, given back once.
                unsafe { release::<A>(object, 64, PLAIN) };
            }
            total.extra[0] += nanos(start);
            total.extra[2] = resident_kib().saturating_sub(before);
        }
        total
    }
}

/// `fork` in a process with as many objects as the shape's size says, of 16 B, 26 B, 36 B and so on. What the child
/// does, and the wait for its end, stand outside the timed part.
struct Fork<A>(PhantomData<A>);

impl<A: Api> Fork<A> {
    fn new(shape: Shape) -> Self {
        for index in 0..shape.size {
            acquire::<A>(16 + 10 * index, PLAIN);
        }
        Self(PhantomData)
    }
}

impl<A: Api> Work for Fork<A> {
    fn run(&mut self, iterations: u64) -> Reply {
        let mut total = 0;
        for _ in 0..iterations {
            let start = Instant::now();
            // SAFETY: the child only ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: it ends the child.
                unsafe { libc::_exit(0) };
            }
            total += nanos(start);
            let mut status = 0;
            // SAFETY: the status is live.
            if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child || status != 0 {
                eprintln!("runner: a child failed");
                exit(3);
            }
        }
        reply(total)
    }
}

/// The second number of `/proc/self/statm`, without touching the heap.
fn resident_kib() -> u64 {
    use std::io::Read;
    let mut text = [0; 128];
    let length =
        std::fs::File::open("/proc/self/statm").and_then(|mut file| file.read(&mut text)).unwrap_or(0);
    let pages =
        std::str::from_utf8(&text[..length]).ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    // SAFETY: sysconf reads a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    pages.unwrap_or(0u64) * page / 1024
}
