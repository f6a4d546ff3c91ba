//! What the program wants done with the fault signals, while the kernel has our handler for them.
//!
//! Each signal has a slot that is read inside signal handlers: a sequence lock. A writer makes the number
//! odd, writes, and makes it even again, with all signals blocked, so that no handler of its own thread
//! finds it odd. Readers look again until they saw one even number throughout.

use super::thread;
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

struct Slot {
    sequence: AtomicU32,
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

impl Slot {
    const NEW: Self = Self {
        sequence: AtomicU32::new(0),
        handler: AtomicUsize::new(libc::SIG_DFL),
        flags: AtomicI32::new(0),
        mask: AtomicU64::new(0),
    };

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

static SLOTS: [Slot; 2] = [const { Slot::NEW }; 2];

fn slot(signal: c_int) -> Option<&'static Slot> {
    SLOTS.get(FAULT_SIGNALS.iter().position(|known| *known == signal)?)
}

/// Whether the signal is one of those that are kept here.
pub fn is_kept(signal: c_int) -> bool {
    slot(signal).is_some()
}

/// The program's disposition of a fault signal; the default for any other.
pub fn get(signal: c_int) -> Action {
    let Some(slot) = slot(signal) else { return Action::DEFAULT };
    loop {
        let before = slot.sequence.load(Ordering::Acquire);
        let action = slot.load();
        fence(Ordering::Acquire);
        if before.is_multiple_of(2) && slot.sequence.load(Ordering::Relaxed) == before {
            return action;
        }
        core::hint::spin_loop();
    }
}

/// Lets `change` say from the disposition of a fault signal what it is to be, if anything else; the one
/// before.
pub fn update(signal: c_int, change: impl FnOnce(Action) -> Option<Action>) -> Action {
    let Some(slot) = slot(signal) else { return Action::DEFAULT };
    let unblocked = block(u64::MAX);
    let mut number = slot.sequence.load(Ordering::Relaxed) & !1;
    while let Err(other) =
        slot.sequence.compare_exchange_weak(number, number | 1, Ordering::Acquire, Ordering::Relaxed)
    {
        number = other & !1;
        core::hint::spin_loop();
    }
    fence(Ordering::Release);
    let old = slot.load();
    if let Some(new) = change(old) {
        slot.store(new);
    }
    slot.sequence.store(number.wrapping_add(2), Ordering::Release);
    set_mask(unblocked);
    old
}

/// In a forked child: ends what another thread was in the middle of.
pub fn in_child() {
    for slot in &SLOTS {
        let number = slot.sequence.load(Ordering::Relaxed);
        slot.sequence.store(number.next_multiple_of(2), Ordering::Release);
    }
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
const FAULTS: u64 = bit(libc::SIGSEGV) | bit(libc::SIGBUS);
/// The signals that the C library keeps to itself.
const RESERVED: u64 = bit(32) | bit(33);

/// Changes the calling thread's mask for the program, which is told that the fault signals are blocked where
/// it blocks them. They are not: the kernel kills a thread that faults with the signal blocked, without
/// a word. The mask before as the program knows it; the errno of a change that there is not.
pub fn change_mask(how: c_int, set: Option<u64>) -> Result<u64, c_int> {
    let known = thread::blocked();
    let mut old = 0_u64;
    let Some(set) = set else { return Ok(block(0) | known) };
    let (mask, now) = match how {
        libc::SIG_BLOCK => (set & !FAULTS, known | set & FAULTS),
        libc::SIG_UNBLOCK => (set, known & !set),
        libc::SIG_SETMASK => (set & !FAULTS, set & FAULTS),
        _ => return Err(libc::EINVAL),
    };
    let mask = mask & !RESERVED;
    // SAFETY: both are live words, of the size that is stated.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, &raw mut old, 8_usize) };
    thread::set_blocked(now);
    Ok(old | known)
}

/// Takes the fault signals out of the mask that the process was started with.
pub fn unblock_faults() {
    let old = block(0);
    if old & FAULTS != 0 {
        set_mask(old & !FAULTS);
        thread::set_blocked(old & FAULTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_faults_are_blocked_in_name_only() {
        let before = change_mask(libc::SIG_BLOCK, Some(u64::MAX)).expect("a change");
        assert_eq!(change_mask(libc::SIG_BLOCK, None).map(|mask| mask & FAULTS), Ok(FAULTS));
        let real = block(0);
        assert_eq!(real & FAULTS, 0);
        assert_ne!(real & bit(libc::SIGUSR1), 0);
        assert_eq!(real & RESERVED, 0);
        change_mask(libc::SIG_UNBLOCK, Some(bit(libc::SIGSEGV))).expect("a change");
        assert_eq!(
            change_mask(libc::SIG_SETMASK, Some(before)).map(|mask| mask & FAULTS),
            Ok(bit(libc::SIGBUS))
        );
        assert_eq!(change_mask(libc::SIG_BLOCK, None), Ok(before));
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
    }
}
