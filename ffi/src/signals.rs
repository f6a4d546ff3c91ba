//! The C library's functions that set what a signal does.
//!
//! For SIGSEGV and SIGBUS the kernel keeps this library's handler, and what the program asks for is kept
//! beside it and done for every fault that is not the heap's: see `sys::deliver`. The program is told of
//! what it installed and not of ours. All other signals go to the C library. Blocking the two is believed
//! and not done: a thread that faults with the signal blocked would be killed without a report.
//!
//! `_exit` is here as well: a program that went on after errors ends with its summary, and with the status
//! that says so, whichever way it ends.

use crate::init;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use fencepost_core::heap;
use fencepost_core::sys::action::{self, Action, bit};
use fencepost_core::sys::{die, errno};
use libc::{sigaction as SigAction, sighandler_t, sigset_t};

type SigActionFunction = unsafe extern "C" fn(c_int, *const SigAction, *mut SigAction) -> c_int;
type SignalFunction = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;

/// `SIG_HOLD`, which `sigset` alone takes.
const SIG_HOLD: sighandler_t = 2;

/// A function of the C library's, looked up once.
struct Real {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

static REAL_SIGACTION: Real = Real::new(c"sigaction");
static REAL_SIGNAL: Real = Real::new(c"signal");

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(core::ptr::null_mut()) }
    }

    fn get(&self) -> *mut c_void {
        let mut real = self.address.load(Ordering::Acquire);
        if real.is_null() {
            real = init::next(self.name);
            self.address.store(real, Ordering::Release);
        }
        real
    }
}

fn real_sigaction() -> Option<SigActionFunction> {
    // SAFETY: the symbol `sigaction` is a function of this type; null becomes `None`.
    unsafe { core::mem::transmute::<*mut c_void, Option<SigActionFunction>>(REAL_SIGACTION.get()) }
}

fn real_signal() -> Option<SignalFunction> {
    // SAFETY: the symbol `signal` is a function of this type; null becomes `None`.
    unsafe { core::mem::transmute::<*mut c_void, Option<SignalFunction>>(REAL_SIGNAL.get()) }
}

/// Looks the C library's functions up while that is safe: programs call them in signal handlers.
extern "C" fn on_load() {
    action::unblock_faults();
    REAL_SIGACTION.get();
    REAL_SIGNAL.get();
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
    // SAFETY: as in `first_word`.
    unsafe { (&raw mut result.sa_mask).cast::<u64>().write(action.mask) };
    result
}

/// Sets what a signal does, for the functions below; the action before. `None` and `errno` if the C
/// library refuses.
fn exchange(number: c_int, new: Action) -> Option<Action> {
    if action::is_kept(number) {
        init::ensure();
        return Some(action::update(number, |_| Some(new)));
    }
    let (new, mut old) = (to_libc(new), to_libc(Action::DEFAULT));
    let Some(real) = real_sigaction() else {
        errno::set(libc::ENOSYS);
        return None;
    };
    // SAFETY: both are live.
    let status = unsafe { real(number, &raw const new, &raw mut old) };
    (status == 0).then(|| Action {
        handler: old.sa_sigaction,
        flags: old.sa_flags,
        mask: first_word(&old.sa_mask),
    })
}

/// `sigaction`; the fault signals keep this library's handler.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(number: c_int, new: *const SigAction, old: *mut SigAction) -> c_int {
    if !action::is_kept(number) {
        return match real_sigaction() {
            // SAFETY: the caller vouches for the same.
            Some(real) => unsafe { real(number, new, old) },
            None => {
                errno::set(libc::ENOSYS);
                -1
            }
        };
    }
    init::ensure();
    // SAFETY: null or a live action of the caller's.
    let new = unsafe { new.as_ref() }.map(|new| Action {
        handler: new.sa_sigaction,
        flags: new.sa_flags,
        mask: first_word(&new.sa_mask),
    });
    let before = action::update(number, |_| new);
    if !old.is_null() {
        // SAFETY: the caller passes a place for the result.
        unsafe { old.write(to_libc(before)) };
    }
    0
}

/// `signal` and its kin, for the fault signals and others alike.
fn set_handler(number: c_int, handler: sighandler_t, flags: c_int, mask: u64) -> sighandler_t {
    match exchange(number, Action { handler, flags, mask }) {
        Some(old) => old.handler,
        None => libc::SIG_ERR,
    }
}

/// `signal` as BSD and glibc have it: the handler stays, system calls are restarted. Other signals go to
/// the C library, which remembers what `siginterrupt` said of them.
///
/// # Safety
/// The handler is a function of one argument, `SIG_DFL` or `SIG_IGN`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    if action::is_kept(number) {
        return set_handler(number, handler, libc::SA_RESTART, bit(number));
    }
    match real_signal() {
        // SAFETY: the caller vouches for the same.
        Some(real) => unsafe { real(number, handler) },
        None => set_handler(number, handler, libc::SA_RESTART, bit(number)),
    }
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
        // SAFETY: as above.
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
    match exchange(number, Action { handler: libc::SIG_IGN, flags: 0, mask: 0 }) {
        Some(_) => 0,
        None => -1,
    }
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
    match unsafe { change_mask(how, set, old) } {
        Ok(()) => 0,
        Err(error) => {
            errno::set(error);
            -1
        }
    }
}

/// `_exit`, with the status that errors ask for.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: c_int) -> ! {
    die::exit_now(heap::on_quick_exit(status))
}

/// The same under the name of ISO C.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: c_int) -> ! {
    die::exit_now(heap::on_quick_exit(status))
}
