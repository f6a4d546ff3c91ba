//! The C library's functions that set what a signal does.
//!
//! For SIGSEGV and SIGBUS the kernel keeps this library's handler. The program's disposition is kept beside it and
//! applied to every fault that is not the heap's: see `sys::deliver`. A handler of another signal that is to run on the
//! alternate stack (`SA_ONSTACK`) is kept as well: the kernel's alternate stack is this library's, and the handler runs
//! on the program's, if there is one. Questions of the program are answered with its own settings. All else goes to the
//! C library. A program that blocks the two signals blocks them in name only: a thread that faults with the signal
//! blocked would be killed without a report. A signal that is sent waits (`sys::deliver`).
//!
//! A child of `vfork` runs in its parent's memory, with dispositions, masks and an alternate stack of its own. Its
//! settings go to the kernel and are not remembered.
//!
//! `_exit` is here as well: a program that went on after errors ends with its summary and with the status for errors,
//! whichever way it ends.

use crate::{go, init};
use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, Ordering};
use fencepost_core::heap;
use fencepost_core::sys::action::{self, Action, bit};
use fencepost_core::sys::signal::{self, SA_RESTORER};
use fencepost_core::sys::{deliver, errno, handover, process, stacks};
use libc::{sigaction as SigAction, sighandler_t, sigset_t, stack_t};

unsafe extern "C" {
    /// `sigaction` under its other name, which nobody replaces: no pointer to it has to be looked up and kept.
    #[link_name = "__sigaction"]
    fn libc_sigaction(number: c_int, new: *const SigAction, old: *mut SigAction) -> c_int;
}

/// `SIG_HOLD`, which `sigset` alone takes.
const SIG_HOLD: sighandler_t = 2;
/// The first and the last of the signals that the C library keeps to itself.
const RESERVED: core::ops::RangeInclusive<c_int> = 32..=33;

/// The signals whose handlers, set by `signal`, interrupt system calls: what `siginterrupt` said.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_load() {
    init::ensure();
    if !process::stands_aside() {
        action::unblock_faults();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

/// The first word of a set: the signals up to 64, which are all there are.
fn first_word(set: &sigset_t) -> u64 {
    // SAFETY: a set is an array of words, the first of which has the signals from 1 on.
    unsafe { core::ptr::from_ref(set).cast::<u64>().read() }
}

fn to_libc(action: Action) -> SigAction {
    // SAFETY: an all-zero sigaction is valid: default handler, no flags, empty mask.
    let mut result: SigAction = unsafe { core::mem::zeroed() };
    result.sa_sigaction = action.handler;
    result.sa_flags = action.flags;
    // SAFETY: the set is live and an array of words, the first of which has the signals from 1 on.
    unsafe { (&raw mut result.sa_mask).cast::<u64>().write(action.mask) };
    result
}

fn from_libc(action: &SigAction) -> Action {
    Action { handler: action.sa_sigaction, flags: action.sa_flags, mask: first_word(&action.sa_mask) }
}

/// Sets what a signal does if there is something to be set, and says what it did; the errno of a refusal.
fn exchange(number: c_int, new: Option<Action>) -> Result<Action, c_int> {
    if !(1..=64).contains(&number) || RESERVED.contains(&number) {
        return Err(libc::EINVAL);
    }
    init::ensure();
    if process::stands_aside() {
        return exchange_kernels(number, new);
    }
    let on_alternate = |new: &Action| new.is_handler() && new.flags & libc::SA_ONSTACK != 0;
    if !process::calls_kernel() && new.as_ref().is_some_and(|new| on_alternate(new) && go::has(new.handler)) {
        process::note_kernel_calls();
    }
    if process::borrows_memory() {
        // The parent's dispositions were copied, and are the child's own from here on.
        if new.is_some_and(|new| new.flags & libc::SA_ONSTACK != 0) {
            stacks::make_kernels();
        }
        return exchange_kernels(number, new).map(|old| as_program_knows(number, old, action::get(number)));
    }
    if action::is_fault(number) {
        let old = action::change(number, |old, store| {
            if let Some(new) = new {
                store(new);
                handover::on_change(number);
            }
            old
        });
        if new.is_some_and(|new| new.handler == libc::SIG_IGN) {
            deliver::discard(number);
        }
        return Ok(old);
    }
    action::change(number, |kept, keep| {
        let relayed = new.filter(|new| on_alternate(new) && !process::calls_kernel());
        // First what is to be called, then who calls it.
        if let Some(new) = relayed {
            keep(Action { flags: new.flags & !SA_RESTORER, ..new });
        }
        match exchange_kernels(number, relayed.map(signal::relayed).or(new)) {
            Ok(old) => Ok(as_program_knows(number, old, kept)),
            Err(error) => {
                if relayed.is_some() {
                    keep(kept);
                }
                Err(error)
            }
        }
    })
}

/// What the program installed where the kernel has an entry of ours, or had one until it was called once. What the
/// kernel and `siginterrupt` changed, the kernel knows better.
fn as_program_knows(number: c_int, kernels: Action, kept: Action) -> Action {
    if signal::is_entry(kernels.handler) && action::is_fault(number) {
        return kept;
    }
    let relayed = signal::relayed(kept);
    let is_relayed = kernels.handler == relayed.handler;
    let was_relayed = kernels.handler == libc::SIG_DFL && kernels.mask == relayed.mask;
    if !is_relayed && !was_relayed {
        return kernels;
    }
    let flags = kept.flags & !libc::SA_RESTART | kernels.flags & (libc::SA_RESTART | SA_RESTORER);
    let handler = if is_relayed { kept.handler } else { libc::SIG_DFL };
    Action { handler, flags, ..kept }
}

/// The C library's `sigaction`.
fn exchange_kernels(number: c_int, new: Option<Action>) -> Result<Action, c_int> {
    let (new, mut old) = (new.map(to_libc), to_libc(Action::DEFAULT));
    let new = new.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: null or live, and a live place for the answer; handlers are functions as the program or `signal` says.
    match unsafe { libc_sigaction(number, new, &raw mut old) } {
        0 => Ok(from_libc(&old)),
        _ => Err(errno::get()),
    }
}

/// 0, or -1 and `errno`.
fn status(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => {
            errno::set(error);
            -1
        }
    }
}

/// `sigaction`; the fault signals keep this library's handler.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(number: c_int, new: *const SigAction, old: *mut SigAction) -> c_int {
    // SAFETY: null or a live action of the caller's.
    let result = exchange(number, unsafe { new.as_ref() }.map(from_libc));
    status(result.map(|before| {
        if !old.is_null() {
            // SAFETY: the caller passes a place for the result.
            unsafe { old.write(to_libc(before)) };
        }
    }))
}

/// `signal` and its kin.
fn set_handler(number: c_int, handler: sighandler_t, flags: c_int, mask: u64) -> sighandler_t {
    if handler == libc::SIG_ERR {
        errno::set(libc::EINVAL);
        return libc::SIG_ERR;
    }
    match exchange(number, Some(Action { handler, flags, mask })) {
        Ok(old) => old.handler,
        Err(error) => {
            errno::set(error);
            libc::SIG_ERR
        }
    }
}

/// `signal` as BSD and glibc have it: the handler stays, system calls are restarted unless `siginterrupt` said
/// otherwise.
///
/// # Safety
/// The handler is a function of one argument, `SIG_DFL` or `SIG_IGN`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    let interrupts = INTERRUPTING.load(Ordering::Relaxed) & bit(number) != 0;
    set_handler(number, handler, if interrupts { 0 } else { libc::SA_RESTART }, bit(number))
}

/// `siginterrupt`: whether a signal's handler interrupts system calls, now and when `signal` sets one.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siginterrupt(number: c_int, interrupts: c_int) -> c_int {
    let changed = exchange(number, None).and_then(|old| {
        let kept = old.flags & !libc::SA_RESTART;
        let flags = if interrupts != 0 {
            INTERRUPTING.fetch_or(bit(number), Ordering::Relaxed);
            kept
        } else {
            INTERRUPTING.fetch_and(!bit(number), Ordering::Relaxed);
            kept | libc::SA_RESTART
        };
        exchange(number, Some(Action { flags, ..old }))
    });
    status(changed.map(|_| ()))
}

/// `signal` under its other names.
///
/// # Safety
/// As [`signal`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller vouches for the same.
    unsafe { signal(number, handler) }
}

/// See [`bsd_signal`].
///
/// # Safety
/// As [`signal`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssignal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the caller vouches for the same.
    unsafe { signal(number, handler) }
}

/// `signal` as System V has it: the handler is called once, with the signal not blocked.
///
/// # Safety
/// As [`signal`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    set_handler(number, handler, libc::SA_RESETHAND | libc::SA_NODEFER, 0)
}

/// See [`__sysv_signal`].
///
/// # Safety
/// As [`signal`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    set_handler(number, handler, libc::SA_RESETHAND | libc::SA_NODEFER, 0)
}

/// `sigset`: sets the handler and unblocks the signal, or with `SIG_HOLD` blocks it; the handler before, or
/// `SIG_HOLD` if the signal was blocked.
///
/// # Safety
/// As [`signal`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigset(number: c_int, handler: sighandler_t) -> sighandler_t {
    if !(1..=64).contains(&number) {
        errno::set(libc::EINVAL);
        return libc::SIG_ERR;
    }
    let before = action::block(if handler == SIG_HOLD { bit(number) } else { 0 });
    let was_blocked = before & bit(number) != 0;
    let old = if handler == SIG_HOLD {
        // SAFETY: a live place for the answer.
        let mut current = to_libc(Action::DEFAULT);
        // SAFETY: nothing is set, and the answer is a live structure.
        let status = unsafe { sigaction(number, core::ptr::null(), &raw mut current) };
        if status == 0 { current.sa_sigaction } else { libc::SIG_ERR }
    } else {
        let old = set_handler(number, handler, 0, 0);
        action::set_mask(before & !bit(number));
        old
    };
    if was_blocked && old != libc::SIG_ERR { SIG_HOLD } else { old }
}

/// `sigignore`.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigignore(number: c_int) -> c_int {
    status(exchange(number, Some(Action { handler: libc::SIG_IGN, flags: 0, mask: 0 })).map(|_| ()))
}

/// `sigaltstack`: the program is told of its own stack, the kernel has this library's.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaltstack(new: *const stack_t, old: *mut stack_t) -> c_int {
    heap::use_signal_stack();
    // SAFETY: the caller vouches for the same.
    status(unsafe { stacks::exchange(new, old) })
}

/// # Safety
/// `set` is null or a set, `old` null or a place for one.
unsafe fn change_mask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> Result<(), c_int> {
    // SAFETY: as the caller says.
    let before = action::change_mask(how, unsafe { set.as_ref() }.map(first_word))?;
    if !old.is_null() {
        // SAFETY: as the caller says; an all-zero set is empty, and its first word has the signals.
        unsafe {
            old.write(core::mem::zeroed());
            old.cast::<u64>().write(before);
        }
    }
    Ok(())
}

/// `pthread_sigmask`, which blocks the fault signals in name only.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe { change_mask(how, set, old) }.err().unwrap_or(0)
}

/// `sigprocmask`, the same with its errors in `errno`.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
    // SAFETY: the caller vouches for the same.
    status(unsafe { change_mask(how, set, old) })
}

/// `_exit`, with the status that errors ask for.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: c_int) -> ! {
    process::exit_now(heap::on_quick_exit(status))
}

/// The same under the name of ISO C.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: c_int) -> ! {
    process::exit_now(heap::on_quick_exit(status))
}
