//! Threads: the thread-local slot, ids, exit hooks, fork hooks.
//!
//! The slot is one word of static TLS in the initial-exec model: a hidden symbol in `.tbss`, reached by its offset from
//! the thread pointer. std's `thread_local!` would call `__tls_get_addr` from a shared object on every access. That
//! costs about twice as much and may allocate.

use core::arch::{asm, global_asm};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{c_int, c_void};

/// A word of each thread's, zero in a new one: its symbol, how it is read and how it is set.
macro_rules! thread_word {
    ($symbol:literal, $(#[$read_doc:meta])* $read:ident, $(#[$set_doc:meta])* $set:ident, $type:ty) => {
        global_asm!(
            concat!(".pushsection .tbss.", $symbol, ",\"awT\",@nobits"),
            concat!(".hidden ", $symbol),
            concat!(".globl ", $symbol),
            concat!(".type ", $symbol, ",@object"),
            concat!(".size ", $symbol, ",8"),
            ".p2align 3",
            concat!($symbol, ":"),
            ".zero 8",
            ".popsection",
        );

        $(#[$read_doc])*
        pub fn $read() -> $type {
            let value: $type;
            // SAFETY: the linker resolves the symbol to this object's TLS offset, and fs points at the
            // thread's TLS from the first instruction the dynamic loader runs on.
            unsafe {
                asm!(
                    concat!("mov {value}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    "mov {value}, qword ptr fs:[{value}]",
                    value = out(reg) value,
                    options(nostack, preserves_flags, readonly),
                );
            }
            value
        }

        $(#[$set_doc])*
        pub fn $set(value: $type) {
            // SAFETY: the linker resolves the symbol to this object's TLS offset, and only this thread reads
            // or writes its word.
            unsafe {
                asm!(
                    concat!("mov {offset}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    "mov qword ptr fs:[{offset}], {value}",
                    offset = out(reg) _,
                    value = in(reg) value,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

thread_word! {
    "fencepost_thread_slot",
    /// The calling thread's word.
    #[inline(always)]
    slot,
    /// Sets what [`slot`] says.
    set_slot,
    usize
}

thread_word! {
    "fencepost_thread_blocked",
    /// What the stand-in for blocked signals stands for in the calling thread, as bits of a mask; see [`super::action`].
    blocked,
    /// Sets what [`blocked`] says.
    set_blocked,
    u64
}

thread_word! {
    "fencepost_thread_sealed",
    /// The calling thread's other word: what [`slot`] may not lead to where tables are sealed.
    sealed_slot,
    /// Sets what [`sealed_slot`] says.
    set_sealed_slot,
    usize
}

thread_word! {
    "fencepost_thread_stack",
    /// The calling thread's signal stack of ours, and whether it handles a fault: see [`super::stacks`].
    signal_stack,
    /// Sets what [`signal_stack`] says.
    set_signal_stack,
    usize
}

thread_word! {
    "fencepost_thread_id",
    /// The calling thread's id, 0 until it is asked for.
    #[inline(always)]
    known_id,
    /// Sets what [`known_id`] says.
    set_known_id,
    usize
}

#[cfg(debug_assertions)]
thread_word! {
    "fencepost_thread_ranks",
    /// The ranks of the locks that the calling thread has, as bits; see `sync::rank`.
    ranks,
    /// Sets what [`ranks`] says.
    set_ranks,
    u64
}

/// The calling thread's pointer: the address of its control block, which C libraries put at the high end
/// of the stack they start a thread on. (The first thread's stack is the kernel's and lies elsewhere.)
pub fn pointer() -> usize {
    let value: usize;
    // SAFETY: the ABI has the thread pointer's own address at its address.
    unsafe {
        asm!("mov {value}, qword ptr fs:[0]", value = out(reg) value, options(nostack, preserves_flags, readonly));
    }
    value
}

/// The instruction pointer, the frame pointer register and the stack pointer, here and now.
#[inline(always)]
pub fn frame() -> (usize, usize, usize) {
    let (pc, fp, sp): (usize, usize, usize);
    // SAFETY: reads three registers.
    unsafe {
        asm!("lea {pc}, [rip]", "mov {fp}, rbp", "mov {sp}, rsp", pc = out(reg) pc, fp = out(reg) fp, sp = out(reg) sp, options(nostack, nomem, preserves_flags));
    }
    (pc, fp, sp)
}

/// What the registers hold that functions keep for their callers.
#[inline(always)]
pub fn kept_registers() -> [usize; 6] {
    let mut registers = [0_usize; 6];
    // SAFETY: writes six registers to an array of six.
    unsafe {
        asm!(
            "mov [{to}], rbx",
            "mov [{to} + 8], rbp",
            "mov [{to} + 16], r12",
            "mov [{to} + 24], r13",
            "mov [{to} + 32], r14",
            "mov [{to} + 40], r15",
            to = in(reg) registers.as_mut_ptr(),
            options(nostack, preserves_flags),
        );
    }
    registers
}

/// The kernel's id of the calling thread; 0 if a filter does not let it be asked for.
pub fn id() -> u32 {
    // SAFETY: gettid takes nothing.
    u32::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

/// [`id`], asked for once a thread, or a stand-in from [`STAND_INS`] on: no two threads have the same, and none has 0,
/// which is a free lock's owner. In a child of a bare `clone`, and of `vfork`, it is the parent's: locks are known by
/// it, and the child of `vfork` uses those of its parent.
#[inline(always)]
pub fn own_id() -> u32 {
    match known_id() {
        0 => learn_id(),
        known => known as u32,
    }
}

#[cold]
#[inline(never)]
fn learn_id() -> u32 {
    let id = match id() {
        0 => stand_in(NEXT_STAND_IN.fetch_add(1, Ordering::Relaxed)),
        id => id,
    };
    set_known_id(id as usize);
    id
}

/// The first id that stands in for one that the kernel does not tell. The kernel's own end at 2^22 (`PID_MAX_LIMIT`).
pub const STAND_INS: u32 = 1 << 23;
static NEXT_STAND_IN: AtomicU32 = AtomicU32::new(0);

/// They have 30 bits, as the kernel's have (`FUTEX_TID_MASK`), and begin anew after a thousand million threads.
const fn stand_in(count: u32) -> u32 {
    STAND_INS + count % ((1 << 30) - STAND_INS)
}

/// What [`own_id`] said before the fork that made this process.
static BEFORE_FORK: AtomicU32 = AtomicU32::new(0);

/// In a forked child: the one thread has another id.
pub fn forget_id() {
    BEFORE_FORK.store(known_id() as u32, Ordering::Relaxed);
    learn_id();
}

/// In a forked child: what the forking thread's id was.
pub fn id_before_fork() -> u32 {
    BEFORE_FORK.load(Ordering::Relaxed)
}

/// Whether the calling thread has a real-time policy.
pub fn is_real_time() -> bool {
    // SAFETY: asks for the calling thread's policy.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    matches!(policy & !SCHED_RESET_ON_FORK, FIFO | ROUND_ROBIN)
}

const SCHED_RESET_ON_FORK: libc::c_long = 0x4000_0000;
const FIFO: libc::c_long = libc::SCHED_FIFO as libc::c_long;
const ROUND_ROBIN: libc::c_long = libc::SCHED_RR as libc::c_long;

/// The process id.
pub fn pid() -> u32 {
    // SAFETY: getpid takes nothing and cannot fail.
    u32::try_from(unsafe { libc::getpid() }).unwrap_or(0)
}

/// The process that the heap belongs to: a child of `vfork` runs in its parent's memory, and one of a bare
/// `clone` is not told that it is a child.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Says that the calling process is the heap's: at start, and in a forked child.
pub fn own_process() {
    PROCESS.store(pid(), Ordering::Relaxed);
    super::process::mark();
}

/// Whether the heap has a process yet.
pub(super) fn has_process() -> bool {
    PROCESS.load(Ordering::Relaxed) != 0
}

/// Whether the calling process is the heap's.
pub fn is_own_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == pid()
}

/// Whether a process has ended, or was never this one's child. It is left to be waited for.
pub fn is_gone(process: u32) -> bool {
    // SAFETY: an all-zero structure is a valid value.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    let (how, none) = (libc::WEXITED | libc::WNOHANG | libc::WNOWAIT, core::ptr::null_mut::<c_void>());
    // SAFETY: the kernel fills the live structure.
    let status = unsafe { libc::syscall(libc::SYS_waitid, libc::P_PID, process, &raw mut info, how, none) };
    // SAFETY: filled by `waitid`, or zero: a child that has not ended leaves it zero.
    status != 0 || unsafe { info.si_pid() } != 0
}

/// Sleeps for so many seconds, whatever signals come.
pub fn sleep_seconds(seconds: u64) {
    let mut time = libc::timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    loop {
        let request = time;
        // SAFETY: both are live.
        let status = unsafe { libc::syscall(libc::SYS_nanosleep, &raw const request, &raw mut time) };
        if status == 0 || super::errno::get() != libc::EINTR {
            return;
        }
    }
}

/// Nanoseconds of the monotonic clock.
pub fn clock_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The key whose destructor runs at thread exit, plus one; zero before [`on_exit_init`].
static EXIT_KEY: AtomicU32 = AtomicU32::new(0);

/// Makes `hook` run at the exit of each thread that called [`set_exit_hook`], with what it passed, unless that was done.
pub fn on_exit_init(hook: unsafe extern "C" fn(*mut c_void)) {
    if EXIT_KEY.load(Ordering::Acquire) != 0 {
        return;
    }
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is live; the hook is a function of the right type.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(hook)) } == 0 {
        EXIT_KEY.store(key.wrapping_add(1), Ordering::Release);
    }
}

/// Allocators the exit hook for the calling thread with `value`. May be called again by
/// the hook to run once more after other destructors. `false` if there is no hook to be had.
pub fn set_exit_hook(value: NonNull<c_void>) -> bool {
    let key = EXIT_KEY.load(Ordering::Acquire);
    // SAFETY: the key was created by `on_exit_init`.
    key != 0 && unsafe { libc::pthread_setspecific(key.wrapping_sub(1), value.as_ptr()) } == 0
}

/// Makes the hooks run before every `fork` and in its child.
pub fn on_fork(prepare: unsafe extern "C" fn(), child: unsafe extern "C" fn()) -> bool {
    // SAFETY: the hooks are functions of the right type that live as long as the program.
    let status: c_int = unsafe { libc::pthread_atfork(Some(prepare), None, Some(child)) };
    status == 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_no_thread_of_the_kernels_and_not_free() {
        for count in [0, 1, 1 << 22, u32::MAX - 1, u32::MAX] {
            assert!((STAND_INS..1 << 30).contains(&stand_in(count)), "{count}");
        }
        assert_ne!(stand_in(u32::MAX), stand_in(0));
    }
}
