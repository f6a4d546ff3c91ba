//! The program's dispositions of signals for which the kernel has a handler of ours: the fault signals, and every
//! signal whose handler asked for the alternate stack.
//!
//! Each signal has two copies of its disposition and a number. The number's lowest bit selects the valid copy. A
//! writer, one at a time ([`Turn`]), fills the other copy and increments the number. A reader may be a signal handler
//! anywhere. It reads again only if a whole update ended meanwhile, so it never waits for a writer that does not run.
//!
//! | step of a writer | a reader finds |
//! |---|---|
//! | has its turn, with signals blocked | the valid copy, unchanged |
//! | fills the other copy | the same |
//! | increments the number | the new copy; a reader of the old one reads again, since the next update fills that |
//!
//! A fork between any two steps leaves the valid copy whole.
//!
//! # Blocked in name
//!
//! SIGSEGV and SIGBUS are blocked in name only. In the kernel's mask SIGSTKFLT, which nobody sends, is blocked in their place, so
//! that the kernel saves and restores it over handlers, jumps and coroutines, and new threads and children inherit it. A
//! word of the thread says what it stands for:
//!
//! | the stand-in in the kernel's mask | the word | the program has blocked |
//! |---|---|---|
//! | no | any | neither signal, nor the stand-in itself |
//! | yes | 0, or a runtime asks the kernel | the stand-in |
//! | yes | other | those in the word: the two, one of them, the stand-in |
//!
//! The word changes when the program sets a mask for which the stand-in means something else, before the mask does. A jump or a
//! coroutine that restores an older mask finds the younger word.
//!
//! # Blocking signals
//!
//! [`BlockedSignals`] blocks signals for a moment, except for faults: the kernel ends a process that faults while the
//! signal is blocked.

use super::futex::Turn;
use super::{process, thread};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use libc::c_int;

/// The signals that bad accesses raise.
pub const FAULT_SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// A disposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    /// The handler's address, `SIG_DFL` or `SIG_IGN`.
    pub handler: usize,
    /// `SA_*`.
    pub flags: c_int,
    /// The signals blocked while the handler runs, signal 1 in the lowest bit.
    pub mask: u64,
}

impl Action {
    /// What a signal has before anybody asked for something else.
    pub const DEFAULT: Self = Self { handler: libc::SIG_DFL, flags: 0, mask: 0 };

    /// Whether there is a handler to be called.
    pub const fn is_handler(self) -> bool {
        self.handler != libc::SIG_DFL && self.handler != libc::SIG_IGN
    }
}

/// The bit of a signal in a mask.
pub const fn bit(signal: c_int) -> u64 {
    1_u64.wrapping_shl(signal.wrapping_sub(1).cast_unsigned())
}

/// One of a signal's two copies.
struct Copy {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

impl Copy {
    const NEW: Self =
        Self { handler: AtomicUsize::new(libc::SIG_DFL), flags: AtomicI32::new(0), mask: AtomicU64::new(0) };

    fn load(&self) -> Action {
        Action {
            handler: self.handler.load(Ordering::Relaxed),
            flags: self.flags.load(Ordering::Relaxed),
            mask: self.mask.load(Ordering::Relaxed),
        }
    }

    fn store(&self, action: Action) {
        self.handler.store(action.handler, Ordering::Relaxed);
        self.flags.store(action.flags, Ordering::Relaxed);
        self.mask.store(action.mask, Ordering::Relaxed);
    }
}

struct Versions {
    number: AtomicU32,
    copies: [Copy; 2],
}

impl Versions {
    const NEW: Self = Self { number: AtomicU32::new(0), copies: [Copy::NEW; 2] };

    fn copy(&self, number: u32) -> &Copy {
        let [even, odd] = &self.copies;
        if number.is_multiple_of(2) { even } else { odd }
    }

    fn load(&self) -> Action {
        loop {
            let number = self.number.load(Ordering::Acquire);
            let action = self.copy(number).load();
            fence(Ordering::Acquire);
            if self.number.load(Ordering::Relaxed) == number {
                return action;
            }
        }
    }

    /// By the one whose turn it is.
    fn store(&self, action: Action) {
        let next = self.number.load(Ordering::Relaxed).wrapping_add(1);
        // A reader that sees one of the words written below also sees the incremented number.
        fence(Ordering::Release);
        self.copy(next).store(action);
        self.number.store(next, Ordering::Release);
    }
}

/// The highest signal.
pub const SIGNALS: usize = 64;

static DISPOSITIONS: [Versions; SIGNALS] = [const { Versions::NEW }; SIGNALS];
static TURN: Turn = Turn::NEW;

fn disposition(signal: c_int) -> Option<&'static Versions> {
    DISPOSITIONS.get(usize::try_from(signal).ok()?.checked_sub(1)?)
}

/// Whether the kernel's disposition of the signal is always ours.
pub fn is_fault(signal: c_int) -> bool {
    FAULT_SIGNALS.contains(&signal)
}

/// What was last stored for a signal; the default for none.
pub fn get(signal: c_int) -> Action {
    disposition(signal).map_or(Action::DEFAULT, Versions::load)
}

/// Keeps other threads from changing dispositions while `change` does, which is given the one that is stored and a
/// way to store another. Signals are blocked.
pub fn change<R>(signal: c_int, change: impl FnOnce(Action, &dyn Fn(Action)) -> R) -> R {
    let _turn = TURN.take();
    let disposition = disposition(signal);
    let old = disposition.map_or(Action::DEFAULT, Versions::load);
    change(old, &|new| {
        if let Some(disposition) = disposition {
            disposition.store(new);
        }
    })
}

/// Lets `change` say from the disposition of a signal what it is to be, if anything else; the one before.
pub fn update(signal: c_int, change: impl FnOnce(Action) -> Option<Action>) -> Action {
    self::change(signal, |old, store| {
        if let Some(new) = change(old) {
            store(new);
        }
        old
    })
}

/// In a forked child: another thread's turn is over.
pub fn in_child() {
    TURN.in_child();
}

/// Blocks the signals of `mask` in the calling thread as well; the mask before. Not by the C library,
/// which keeps some signals of its own out, and whose functions the front end replaces.
pub fn block(mask: u64) -> u64 {
    let mut old = 0_u64;
    // SAFETY: both are live words, of the size that is stated.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const mask, &raw mut old, 8_usize)
    };
    old
}

/// Sets the calling thread's mask.
pub fn set_mask(mask: u64) {
    let none = core::ptr::null_mut::<u64>();
    // SAFETY: the mask is a live word, of the size that is stated.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, 8_usize) };
}

/// The fault signals in a mask.
pub(super) const FAULTS: u64 = bit(libc::SIGSEGV) | bit(libc::SIGBUS);
/// The signals that the C library keeps to itself.
const RESERVED: u64 = bit(32) | bit(33);
/// A signal that nobody sends, whose bit in the kernel's mask stands for others.
pub(super) const STAND_IN: u64 = bit(libc::SIGSTKFLT);

/// What the stand-in stands for in the calling thread: itself, until the thread blocks anything in name.
fn meaning() -> u64 {
    match thread::blocked() {
        0 => STAND_IN,
        _ if process::calls_kernel() => STAND_IN,
        word => word,
    }
}

/// What the program takes for blocked where the kernel has this mask.
pub(super) fn as_told(kernels: u64) -> u64 {
    if kernels & STAND_IN == 0 { kernels } else { kernels & !STAND_IN | meaning() }
}

/// Changes the calling thread's mask for the program, which is told that the fault signals are blocked where
/// it blocks them. They are not: the kernel kills a thread that faults with the signal blocked, without
/// a word. One that was sent waits all the same ([`super::deliver`]). The mask before as the program knows it; the errno of
/// a change that there is not.
///
/// A child that runs in its parent's memory has a mask of its own and not a place to remember it: it blocks them. So does
/// a program with a runtime that asks the kernel for its mask ([`super::process`]).
pub fn change_mask(how: c_int, set: Option<u64>) -> Result<u64, c_int> {
    let Some(set) = set.map(|set| set & !RESERVED) else { return Ok(as_told(block(0))) };
    if !matches!(how, libc::SIG_BLOCK | libc::SIG_UNBLOCK | libc::SIG_SETMASK) {
        return Err(libc::EINVAL);
    }
    if process::calls_kernel() || meaning() == STAND_IN && (set & FAULTS == 0 || how == libc::SIG_UNBLOCK) {
        return Ok(kernel_mask(how, set));
    }
    let old = block(0);
    let told = as_told(old);
    let (new, real) = match how {
        libc::SIG_BLOCK => (told | set, old & FAULTS),
        libc::SIG_UNBLOCK => (told & !set, old & FAULTS & !set),
        _ => (set, 0),
    };
    let (plain, named) = (new & !FAULTS & !STAND_IN | real, new & (FAULTS | STAND_IN) & !real);
    let mask = match named {
        0 => plain,
        _ if named == meaning() => plain | STAND_IN,
        _ if process::borrows_memory() => plain | named & FAULTS,
        _ => {
            // First: what the change lets through is judged by it.
            thread::set_blocked(named);
            plain | STAND_IN
        }
    };
    set_mask(mask);
    Ok(told)
}

/// Whether a mask of the kernel's has the stand-in.
pub(super) fn stands_in(kernels: u64) -> bool {
    kernels & STAND_IN != 0
}

/// The system call; the mask before.
fn kernel_mask(how: c_int, mask: u64) -> u64 {
    let mut old = 0_u64;
    // SAFETY: both are live words, of the size that is stated.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, &raw mut old, 8_usize) };
    old
}

/// The fault signals that a thread blocks in name where the kernel has this mask.
pub(super) fn named_in(kernels: u64) -> u64 {
    as_told(kernels) & FAULTS & !kernels
}

/// Whether the calling thread blocks a fault signal in name, or has an older mask in which one may be.
pub fn blocks_in_name() -> bool {
    meaning() != STAND_IN
}

/// Makes the kernel's mask what the program takes it for; the kernel's before, if it was another.
pub fn block_in_kernel() -> Option<u64> {
    if meaning() == STAND_IN {
        return None;
    }
    let kernels = block(0);
    let told = as_told(kernels);
    (told != kernels).then(|| {
        set_mask(told);
        kernels
    })
}

/// Takes the fault signals out of the mask that the process or the thread was started with, and blocks them in name.
pub fn unblock_faults() {
    let old = block(0);
    if old & FAULTS != 0 {
        thread::set_blocked(old & (FAULTS | STAND_IN));
        set_mask(old & !FAULTS | STAND_IN);
    }
}

/// What a thread's own instructions raise.
pub(super) const SYNCHRONOUS: u64 = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGFPE)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS);

/// All signals but faults are blocked in the calling thread while it lives, those of the C library, which
/// cancel threads, among them.
pub struct BlockedSignals {
    before: u64,
    /// Bound to its thread.
    not_send: PhantomData<*mut ()>,
}

/// Whether no signal that is sent can run a handler in the calling thread.
#[cfg(debug_assertions)]
pub fn blocks_handlers() -> bool {
    let reserved = RESERVED | bit(libc::SIGKILL) | bit(libc::SIGSTOP);
    block(0) | reserved | SYNCHRONOUS == u64::MAX
}

impl BlockedSignals {
    /// Begins it.
    pub fn begin() -> Self {
        Self { before: block(!SYNCHRONOUS), not_send: PhantomData }
    }

    /// Lets the signals stay blocked; the mask before, for [`BlockedSignals::end`].
    pub fn keep(self) -> u64 {
        core::mem::ManuallyDrop::new(self).before
    }

    /// Ends what was kept.
    pub fn end(before: u64) {
        set_mask(before);
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_faults_are_blocked_in_name_only() {
        let both = FAULTS | STAND_IN;
        let told = || change_mask(libc::SIG_BLOCK, None).expect("an answer");
        let before = told();
        let unblocked = change_mask(libc::SIG_BLOCK, Some(u64::MAX));
        assert_eq!(unblocked, Ok(before));
        assert_eq!(told() & both, both);
        let real = block(0);
        assert_eq!(real & both, STAND_IN);
        assert_ne!(real & bit(libc::SIGUSR1), 0);
        assert_eq!(real & RESERVED, 0);
        for set in [0, bit(libc::SIGSEGV), STAND_IN, FAULTS, both, bit(libc::SIGBUS) | STAND_IN] {
            change_mask(libc::SIG_SETMASK, Some(set | before)).expect("a change");
            assert_eq!((told(), block(0) & FAULTS), (set | before, 0), "{set:x}");
            assert_eq!(named_in(block(0)), set & FAULTS);
        }
        change_mask(libc::SIG_UNBLOCK, Some(bit(libc::SIGBUS))).expect("a change");
        assert_eq!(told(), before | STAND_IN);
        // What a jump does.
        change_mask(libc::SIG_SETMASK, Some(both)).expect("a change");
        let kernels = block(0);
        set_mask(0);
        assert_eq!(told(), 0);
        change_mask(libc::SIG_SETMASK, Some(before)).expect("a change");
        set_mask(kernels);
        assert_eq!(told(), both);
        assert_eq!(block_in_kernel(), Some(kernels));
        assert_eq!(block(0), both);
        unblock_faults();
        assert_eq!((told(), block(0)), (both, STAND_IN));
        assert_eq!(change_mask(libc::SIG_SETMASK, Some(before)), Ok(both));
        assert_eq!(told(), before);
        assert_eq!(change_mask(77, Some(0)), Err(libc::EINVAL));
    }

    #[test]
    fn what_was_installed_is_reported_back() {
        let mine = Action { handler: 4096, flags: libc::SA_ONSTACK, mask: bit(libc::SIGUSR1) };
        let before = update(libc::SIGBUS, |_| Some(mine));
        assert_eq!(get(libc::SIGBUS), mine);
        assert_eq!(update(libc::SIGBUS, |_| None), mine);
        assert_eq!(update(libc::SIGBUS, |_| Some(before)), mine);
        assert_eq!(get(libc::SIGUSR1), Action::DEFAULT);
        for none in [0, -1, 65, c_int::MIN] {
            assert_eq!(update(none, |_| Some(mine)), Action::DEFAULT);
            assert_eq!(get(none), Action::DEFAULT);
        }
    }

    #[test]
    fn no_reader_sees_parts_of_two_dispositions() {
        const UNUSED: c_int = 60;
        let number = |number: u32| Action {
            handler: number as usize,
            flags: number.cast_signed(),
            mask: u64::from(number),
        };
        update(UNUSED, |_| Some(number(0)));
        std::thread::scope(|scope| {
            for writer in 0..2 {
                scope.spawn(move || {
                    (0..20_000).for_each(|step| {
                        update(UNUSED, |_| Some(number(step * 2 + writer)));
                    })
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..40_000 {
                        let action = get(UNUSED);
                        assert_eq!(action.handler as u64, action.mask);
                        assert_eq!(action.flags.cast_unsigned() as usize, action.handler);
                    }
                });
            }
        });
        update(UNUSED, |_| Some(Action::DEFAULT));
    }
}
