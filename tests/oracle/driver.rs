//! Does the steps of a sequence in this process, and compares what it gets with what must be.
//!
//! A difference ends the process with a line. The process's own memory is none of the heap's under test, so that the
//! steps are all that it sees.

use crate::calls::{self, Answer, Family, Front, Object};
use crate::contents;
use crate::sequence::{Operation, PLACES, Step, THREADS};
use crate::table::{self, HANDLER_PLACES, Held, Known};
use std::cell::RefCell;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, OnceLock};
use std::thread;

/// Seconds after which a child that hangs is ended by SIGALRM.
const CHILD_SECONDS: u32 = 20;
const ERRNO: i32 = 77;

/// What all threads know.
struct Run {
    front: Front,
    /// Whether objects have no alignment but a stated one (`align=exact`).
    exact: bool,
    /// Whether there is one thread, so that the heap's answers cannot change meanwhile.
    alone: bool,
    /// Whether there are bugs among the steps, so that the heap has errors to tell.
    buggy: bool,
    steps: Vec<Vec<Step>>,
    barrier: Barrier,
    left: Mutex<usize>,
    ended: Condvar,
}

static RUN: OnceLock<Run> = OnceLock::new();
static THREAD_IDS: [AtomicI32; THREADS] = [const { AtomicI32::new(0) }; THREADS];
static SEEDS: AtomicUsize = AtomicUsize::new(1);
/// Bugs that the heap must have told of, and those that it may not see.
static SURE_BUGS: AtomicUsize = AtomicUsize::new(0);
static OTHER_BUGS: AtomicUsize = AtomicUsize::new(0);

/// Says what is wrong and ends the process.
fn fail(what: &str) -> ! {
    let line = format!("oracle: {what}\n");
    // SAFETY: the text is live; `_exit` ends the process.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::_exit(1)
    }
}

fn run() -> &'static Run {
    RUN.get().expect("set before the first thread starts")
}

fn seed() -> usize {
    SEEDS.fetch_add(0x1_0001, Ordering::Relaxed)
}

/// Does all steps. The bugs that must have been told of, and the others.
pub fn main(front: Front, exact: bool, steps: &[Step]) -> (usize, usize) {
    let threads = steps.iter().map(|step| step.thread + 1).max().unwrap_or(1).min(THREADS);
    let of = |thread: usize| {
        let shared = |step: &&Step| matches!(step.operation, Operation::Barrier | Operation::End);
        steps.iter().filter(|step| step.thread == thread || shared(step)).copied().collect()
    };
    let bug = |step: &Step| {
        matches!(step.operation, Operation::Again | Operation::Inside | Operation::Beyond | Operation::Stale)
    };
    let started = RUN.set(Run {
        front,
        exact,
        alone: threads == 1,
        buggy: steps.iter().any(bug),
        steps: (0..threads).map(of).collect(),
        barrier: Barrier::new(threads),
        left: Mutex::new(threads),
        ended: Condvar::new(),
    });
    assert!(started.is_ok(), "a process does one sequence");
    install_handler();
    (0..threads).for_each(|thread| begin(thread, 0));
    let run = run();
    let mut left = run.left.lock().expect("no thread panics");
    while *left > 0 {
        left = run.ended.wait(left).expect("no thread panics");
    }
    drop(left);
    drain();
    (SURE_BUGS.load(Ordering::Relaxed), OTHER_BUGS.load(Ordering::Relaxed))
}

/// A thread that does the steps of `thread` from number `from` on.
fn begin(thread: usize, from: usize) {
    thread::spawn(move || work(thread, from));
}

fn work(thread: usize, from: usize) {
    // SAFETY: asks for a number.
    THREAD_IDS[thread].store(unsafe { libc::gettid() }, Ordering::Relaxed);
    let run = run();
    let steps = &run.steps[thread];
    for (index, step) in steps.iter().enumerate().skip(from) {
        if step.operation == Operation::Leave {
            THREAD_IDS[thread].store(0, Ordering::Relaxed);
            return begin(thread, index + 1);
        }
        act(step, thread);
    }
    THREAD_IDS[thread].store(0, Ordering::Relaxed);
    *run.left.lock().expect("no thread panics") -= 1;
    run.ended.notify_one();
}

fn act(step: &Step, thread: usize) {
    let Step { operation, place, a, b, .. } = *step;
    let (front, place) = (run().front, place % PLACES);
    match operation {
        Operation::Allocate => allocate(place, a, b, true),
        Operation::Free => free(place, a, true),
        Operation::Resize => resize(place, a, b),
        Operation::Verify => with(place, |known| verify(known, true)),
        Operation::Refill => with(place, refill),
        Operation::Transfer => with(place, transfer),
        Operation::Poison => with(place, |known| poison(known, a, b)),
        Operation::Check => check(),
        Operation::Trim => calls::trim(front),
        Operation::Figures => {
            if !calls::figures(front) {
                fail("figures that cannot be");
            }
        }
        Operation::Absurd => {
            if !calls::absurd(front, a) {
                fail(&format!("an absurd size was granted, or errno is {}", super::errno()));
            }
        }
        Operation::Leave => {}
        Operation::Short => short(a),
        Operation::Signal => signal(a),
        Operation::Fork => fork(a),
        Operation::Barrier => {
            run().barrier.wait();
        }
        Operation::End => {
            run().barrier.wait();
            if thread == 0 {
                drain();
                check();
            }
            run().barrier.wait();
        }
        Operation::Again => bug_again(place, a),
        Operation::Inside => bug_inside(place, a),
        Operation::Beyond => bug_beyond(place),
        Operation::Stale => bug_stale(place, a, b),
        Operation::Plant => with(place, |known| {
            let pointer = std::ptr::with_exposed_provenance_mut::<u8>(known.object.address);
            if known.object.size > 0 {
                // SAFETY: the object is live, and has a byte.
                unsafe { pointer.write(!pointer.read()) };
            }
        }),
    }
}

/// Does something with the object at a place, if there is one.
fn with(place: usize, action: impl FnOnce(&mut Known)) {
    if let Some((held, mut known)) = table::take_full(place) {
        action(&mut known);
        held.keep(&known);
    }
}

fn allocate(place: usize, how: usize, size: usize, may_wait: bool) {
    let Some(held) = table::take_empty(place) else { return };
    match calls::allocate(run().front, how, size) {
        Some(object) => accept(held, &object, may_wait),
        // A handler may get nothing.
        None if !may_wait => held.empty(),
        None => fail(&format!("no memory for {size} bytes, function {how}")),
    }
}

/// Looks at a fresh object and fills it.
fn accept(held: Held, object: &Object, may_wait: bool) {
    if let Err(other) = held.put(object, may_wait) {
        fail(&format!("{} overlaps {}", say(object), say(&other)));
    }
    aligned(object);
    if object.zeroed {
        // SAFETY: the object is fresh, and so long.
        if let Some(at) = unsafe { contents::not_zero(object.address, object.size) } {
            fail(&format!("{} is not zero at {at}", say(object)));
        }
    }
    let known = Known { object: *object, seed: seed(), poisoned: false };
    // SAFETY: the object is live and in hand.
    unsafe { contents::fill(object.address, object.size, known.seed) };
    held.keep(&known);
}

fn aligned(object: &Object) {
    let least = if object.family == Family::Rust || run().exact { 1 } else { 16 };
    if !object.address.is_multiple_of(object.align.max(least)) {
        fail(&format!("{} is not aligned", say(object)));
    }
}

fn say(object: &Object) -> String {
    let Object { address, size, align, family, .. } = object;
    format!("{address:#x} of {size} bytes, alignment {align}, {family:?},")
}

fn verify(known: &Known, asking: bool) {
    let Known { object, seed, poisoned } = known;
    let front = run().front;
    if !poisoned {
        // SAFETY: the object is live and in hand.
        let difference = unsafe { contents::difference(object.address, object.size, object.size, *seed) };
        if let Some(at) = difference {
            fail(&format!("{} changed at {at}", say(object)));
        }
    }
    if !asking {
        return;
    }
    let size = calls::size_of(front, object.address);
    if size != object.size {
        fail(&format!("{} has {size} bytes, says the heap", say(object)));
    }
    let bounds = calls::bounds(front, object.address + object.size / 2);
    if bounds != Some((object.address, object.size)) {
        fail(&format!("{} has the bounds {bounds:x?}", say(object)));
    }
    let inside = calls::ask(front, object.address, object.size);
    let beyond = calls::ask(front, object.address, object.size + 1);
    let wanted = if *poisoned { Answer::Poisoned } else { Answer::Fine };
    if !poisoned && inside != wanted || run().alone && !poisoned && beyond != Answer::Overflow {
        fail(&format!("{}: accesses are {inside:?}, and {beyond:?} with one byte more", say(object)));
    }
}

fn free(place: usize, how: usize, may_wait: bool) {
    let Some((held, known)) = table::take_full(place) else { return };
    verify(&known, false);
    held.forget(may_wait);
    super::set_errno(ERRNO);
    calls::free(&known.object, how);
    if super::errno() != ERRNO {
        fail(&format!("a free set errno to {}: {}", super::errno(), say(&known.object)));
    }
    held.empty();
}

fn resize(place: usize, how: usize, size: usize) {
    let Some((held, known)) = table::take_full(place) else { return };
    let size = size.max(1);
    verify(&known, false);
    held.forget(true);
    let Some(new) = calls::resize(&known.object, how, size) else {
        if held.put(&known.object, true).is_err() {
            fail("an object overlaps what it did not before");
        }
        return held.keep(&known);
    };
    if new.address == 0 {
        fail(&format!("no memory to resize {} to {size}", say(&known.object)));
    }
    if let Err(other) = held.put(&new, true) {
        fail(&format!("{} overlaps {} after a resize", say(&new), say(&other)));
    }
    aligned(&new);
    if !known.poisoned {
        let (old, most) = (known.object.size, known.object.size.min(size));
        // SAFETY: the object is live and in hand, and both sizes are at least `most`.
        if let Some(at) = unsafe { contents::difference(new.address, old, most, known.seed) } {
            fail(&format!("{} became {} and changed at {at}", say(&known.object), say(&new)));
        }
    }
    let mut known = Known { object: new, seed: 0, poisoned: false };
    fill(&mut known);
    held.keep(&known);
}

fn fill(known: &mut Known) {
    known.seed = seed();
    // SAFETY: the object is live and in hand.
    unsafe { contents::fill(known.object.address, known.object.size, known.seed) };
}

fn refill(known: &mut Known) {
    if !known.poisoned {
        fill(known);
    }
}

/// The kernel writes and reads the whole object, and functions of the C library do.
fn transfer(known: &mut Known) {
    // No child comes here.
    static FILES: OnceLock<(i32, i32)> = OnceLock::new();
    let Object { address, size, .. } = known.object;
    if known.poisoned {
        return;
    }
    let (zero, null) = *FILES.get_or_init(|| {
        // SAFETY: the names end in NUL.
        unsafe {
            (
                libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC),
                libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC),
            )
        }
    });
    let pointer = std::ptr::with_exposed_provenance_mut::<libc::c_void>(address);
    // SAFETY: the object is live, in hand, and so long.
    unsafe {
        // A signal cuts a read of zeros short. What cannot be written fails at the next one.
        let mut done = 0;
        while done < size {
            match libc::read(zero, pointer.cast::<u8>().add(done).cast(), size - done) {
                read @ 1.. => done += read.cast_unsigned(),
                _ if super::errno() == libc::EINTR => {}
                read => {
                    fail(&format!("{}: read at {done} gave {read}, {}", say(&known.object), super::errno()))
                }
            }
        }
        if let Some(at) = contents::not_zero(address, size) {
            fail(&format!("{}: read wrote something else at {at}", say(&known.object)));
        }
        let wrote = libc::write(null, pointer, size);
        if wrote != size as isize {
            fail(&format!("{}: write gave {wrote}, {}", say(&known.object), super::errno()));
        }
        libc::memset(pointer, 0x33, size);
        libc::memmove(pointer, pointer.cast::<u8>().add(size / 3).cast(), size - size / 3);
    }
    fill(known);
}

fn poison(known: &mut Known, a: usize, b: usize) {
    let Object { address, size, .. } = known.object;
    if size == 0 {
        return;
    }
    let front = run().front;
    let from = a % size;
    let len = 1 + b / 2 % (size - from);
    // Only a sweep that looks at the object in that moment may hinder it.
    if !calls::poison(front, false, address + from, len) {
        if run().alone {
            fail(&format!("{} cannot be poisoned from {from} on for {len}", say(&known.object)));
        }
        known.poisoned = true;
    } else {
        known.poisoned = true;
        let answer = calls::ask(front, address + from + len / 2, 1);
        if answer != Answer::Poisoned {
            fail(&format!("{}: poisoned bytes are {answer:?}", say(&known.object)));
        }
    }
    if !b.is_multiple_of(2) {
        return;
    }
    if !calls::poison(front, true, address, size) {
        if run().alone {
            fail(&format!("{}: poison cannot be taken back", say(&known.object)));
        }
        return;
    }
    known.poisoned = false;
    fill(known);
}

fn check() {
    let errors = calls::check(run().front);
    if errors > 0 && !run().buggy {
        fail(&format!("the heap found {errors} errors"));
    }
}

/// Compares and frees everything.
fn drain() {
    for place in table::indices() {
        if let Some((held, known)) = table::take_full(place) {
            verify(&known, true);
            held.keep(&known);
            free(place, place, true);
        }
    }
}

/// What a short thread frees when its thread-local storage goes.
struct Late(RefCell<Vec<Object>>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.borrow().iter().for_each(|object| calls::free(object, 4));
    }
}

thread_local! {
    static LATE: Late = const { Late(RefCell::new(Vec::new())) };
}

extern "C" fn live_shortly(objects: *mut libc::c_void) -> *mut libc::c_void {
    for number in 0..objects.addr() {
        let size = 1 + number * 67 % 2_100;
        let Some(object) = calls::allocate(run().front, number % 7, size) else {
            fail("no memory for a short thread")
        };
        // SAFETY: the object is fresh and so long.
        unsafe { contents::fill(object.address, size, number) };
        if number.is_multiple_of(2) {
            LATE.with(|late| late.0.borrow_mut().push(object));
        } else {
            calls::free(&object, number);
        }
    }
    std::ptr::null_mut()
}

/// A thread that allocates, and frees half of what it made at its very end. Not one of std's, whose locks another thread may
/// hold for ever in a forked child.
fn short(objects: usize) {
    let mut thread = 0;
    let argument = std::ptr::without_provenance_mut(objects);
    // SAFETY: the function has the right type, the number is no pointer to it, and the thread is joined.
    let status = unsafe {
        match libc::pthread_create(&raw mut thread, std::ptr::null(), live_shortly, argument) {
            0 => libc::pthread_join(thread, std::ptr::null_mut()),
            status => status,
        }
    };
    if status != 0 {
        fail(&format!("a short thread: {status}"));
    }
}

fn install_handler() {
    let handler: extern "C" fn(i32) = on_signal;
    // SAFETY: the action is valid and live, and the handler does only what it may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}

fn signal(thread: usize) {
    let id = THREAD_IDS[thread % THREADS].load(Ordering::Relaxed);
    if id != 0 {
        // SAFETY: a thread that has ended meanwhile is no error that matters.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, libc::SIGUSR1) };
    }
}

/// Allocates and frees, in the middle of whatever its thread does. It calls no function whose address it would
/// have to look up.
extern "C" fn on_signal(_: i32) {
    let kept = super::errno();
    let seed = seed();
    for step in 0..3 {
        let number = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> (16 + step);
        let place = PLACES + number % HANDLER_PLACES;
        let how = [0, 8, 11, 13, 15, 19, 21, 7][number >> 8 & 7] | (number & 0x3f00);
        allocate(place, how, [10, 100, 1_000, 5_000, 20_000][number % 5], false);
        let place = PLACES + (number >> 4) % HANDLER_PLACES;
        free(place, [1, 4, 5][number % 3], false);
    }
    super::set_errno(kept);
}

/// A child that uses the heap it inherited.
fn fork(objects: usize) {
    let turn = calls::LOOKUPS.lock().expect("no panic");
    // SAFETY: the child does what is tested, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    drop(turn);
    if child == 0 {
        table::after_fork();
        // SAFETY: sets a timer; `_exit` ends the process.
        unsafe {
            libc::alarm(CHILD_SECONDS);
            in_child(objects);
            libc::_exit(0);
        }
    }
    if child < 0 {
        return;
    }
    let mut status = 0;
    loop {
        // SAFETY: the status is live, the child is this process's.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited == child {
            break;
        }
        if super::errno() != libc::EINTR {
            fail(&format!("waitpid: {}", super::errno()));
        }
    }
    // With bugs, the child's status tells of them.
    if status != 0 && !(run().buggy && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 99) {
        fail(&format!("a child ended with the wait status {status:#x}"));
    }
}

fn in_child(objects: usize) {
    let mut all = table::indices();
    for place in all.by_ref() {
        with(place, |known| verify(known, true));
        if place.is_multiple_of(2) {
            free(place, place, true);
        }
    }
    for number in 0..objects {
        allocate(number * 5 % PLACES, number, 1 + number * 331 % 6_000, true);
        if number % 3 == 0 {
            free(number * 2 % PLACES, number, true);
        }
    }
    if objects % 2 == 1 {
        short(objects);
    }
    check();
    if objects.is_multiple_of(3) {
        drain();
    }
}

fn bug_again(place: usize, how: usize) {
    let Some((held, known)) = table::take_full(place) else { return };
    verify(&known, false);
    held.forget(true);
    calls::free(&known.object, how);
    calls::free_address(&known.object, known.object.address);
    SURE_BUGS.fetch_add(1, Ordering::Relaxed);
    held.empty();
}

fn bug_inside(place: usize, a: usize) {
    with(place, |known| {
        let Object { address, size, .. } = known.object;
        if size > 1 {
            calls::free_address(&known.object, address + 1 + a % (size - 1));
            SURE_BUGS.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn bug_beyond(place: usize) {
    with(place, |known| {
        let Object { address, size, .. } = known.object;
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address + size);
        // SAFETY: this is the bug: the byte is slack, or a guard that the heap opens.
        unsafe { pointer.write_volatile(!pointer.read_volatile()) };
        OTHER_BUGS.fetch_add(1, Ordering::Relaxed);
    });
}

fn bug_stale(place: usize, how: usize, size: usize) {
    let Some((held, known)) = table::take_full(place) else { return };
    if matches!(known.object.family, Family::Malloc | Family::Aligned | Family::Rust) {
        verify(&known, false);
        held.forget(true);
        calls::free(&known.object, 5);
        SURE_BUGS.fetch_add(1, Ordering::Relaxed);
        let new = calls::resize(&known.object, how, 1 + size % 9_000);
        return match new {
            Some(object) if object.address != 0 => accept(held, &object, true),
            _ => held.empty(),
        };
    }
    held.keep(&known);
}
