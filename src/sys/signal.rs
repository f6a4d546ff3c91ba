//! Signals: taking SIGSEGV and SIGBUS over, handing foreign faults on, ending by a signal.

use crate::addr::Addr;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{c_int, c_void, sigaction, siginfo_t};

/// The signals that bad accesses raise.
pub const FAULT_SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// The signal code of faults for which the kernel knows no address.
const SI_KERNEL: c_int = 0x80;

/// The processor's number of the exception.
const PAGE_FAULT: usize = 14;

/// Bytes of an alternate signal stack.
pub const STACK_BYTES: usize = 64 * 1024;

/// What a fault's context says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The faulting instruction.
    pub pc: usize,
    /// The registers, by their DWARF numbers.
    pub registers: [usize; 16],
    /// `Some(true)` for a write, `Some(false)` for a read.
    pub write: Option<bool>,
    /// Whether the fault was an instruction fetch.
    pub fetch: bool,
}

impl Context {
    /// The stack pointer.
    pub const fn sp(&self) -> usize {
        self.registers[7]
    }

    /// The frame pointer register.
    pub const fn fp(&self) -> usize {
        self.registers[6]
    }
}

/// Where the kernel keeps the registers with the DWARF numbers 0 to 15.
const BY_DWARF_NUMBER: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RDX,
    libc::REG_RCX,
    libc::REG_RBX,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_RBP,
    libc::REG_RSP,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// A handler the way `sigaction` takes it.
pub type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The dispositions found when ours was installed, by position in [`FAULT_SIGNALS`].
static mut PREVIOUS: [MaybeUninit<sigaction>; 2] = [MaybeUninit::uninit(); 2];
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs `handler` for the fault signals, on the alternate stack where a thread has one; only the
/// first call does.
pub fn install(handler: Handler) {
    if INSTALLED.load(Ordering::Acquire) {
        return;
    }
    for (index, signal) in FAULT_SIGNALS.into_iter().enumerate() {
        // SAFETY: an all-zero sigaction is valid: default handler, no flags, empty mask.
        let mut action: sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let mut previous = MaybeUninit::<sigaction>::zeroed();
        // SAFETY: both structures are live; called once at start before threads can race for them.
        unsafe {
            libc::sigaction(signal, &raw const action, previous.as_mut_ptr());
            let slots = &raw mut PREVIOUS;
            if let Some(slot) = (*slots).get_mut(index) {
                *slot = previous;
            }
        }
    }
    INSTALLED.store(true, Ordering::Release);
}

/// Hands a fault that is not ours to whoever had the signal before: calls their handler, or restores
/// the default disposition so that the returning instruction faults again and ends the process.
///
/// # Safety
/// `info` and `context` are null or what the kernel passed to a handler.
pub unsafe fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = previous(signal);
    match previous.map(|action| (action.sa_sigaction, action.sa_flags)) {
        Some((handler, flags)) if handler != libc::SIG_DFL && handler != libc::SIG_IGN => {
            if flags & libc::SA_SIGINFO != 0 {
                // SAFETY: the program registered this address as a three-argument handler.
                let call = unsafe {
                    core::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler)
                };
                call(signal, info, context);
            } else {
                // SAFETY: the program registered this address as a one-argument handler.
                let call = unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
                call(signal);
            }
        }
        _ => {
            restore_default(signal);
            // A signal that someone sent does not come again by itself.
            // SAFETY: the kernel passed a live siginfo.
            if !info.is_null() && unsafe { (*info).si_code } <= 0 {
                // SAFETY: raising a signal in this thread has no memory effect.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

/// Whether the signal, handed on by [`chain`], ends the process.
pub fn ends_process(signal: c_int) -> bool {
    previous(signal).is_none_or(|action| action.sa_sigaction == libc::SIG_DFL)
}

/// Whether the signal stands for a general protection fault: an address that no pointer can have, or a
/// vector access that is not aligned. The kernel knows no address then.
///
/// # Safety
/// `info` is null or what the kernel passed to a handler.
pub unsafe fn is_general_protection(info: *const siginfo_t) -> bool {
    // SAFETY: live if not null, as the caller says.
    !info.is_null() && unsafe { (*info).si_code } == SI_KERNEL
}

fn previous(signal: c_int) -> Option<sigaction> {
    if !INSTALLED.load(Ordering::Acquire) {
        return None;
    }
    let index = FAULT_SIGNALS.iter().position(|known| *known == signal)?;
    // SAFETY: written once by `install`, which the flag orders before this read.
    unsafe {
        let slots = &raw const PREVIOUS;
        (*slots).get(index).map(|slot| slot.assume_init_read())
    }
}

/// Gives a signal its default disposition, so that it ends the process.
pub fn restore_default(signal: c_int) {
    // SAFETY: an all-zero sigaction is valid and means the default.
    unsafe {
        let action: sigaction = core::mem::zeroed();
        libc::sigaction(signal, &raw const action, core::ptr::null_mut());
    }
}

/// Ends the process by SIGABRT with its default disposition, so that a core dump shows this frame.
pub fn abort_process() -> ! {
    restore_default(libc::SIGABRT);
    // SAFETY: unblocks and raises a signal; abort does not return even if that should.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGABRT);
        libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), core::ptr::null_mut());
        libc::raise(libc::SIGABRT);
        libc::abort()
    }
}

/// The alternate stack that a signal is being handled on in this thread: its lowest address, and one past
/// its highest.
pub fn stack_in_use() -> Option<(usize, usize)> {
    let mut current = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: queries into a live structure.
    let known = unsafe { libc::sigaltstack(core::ptr::null(), &raw mut current) } == 0;
    let low = current.ss_sp.expose_provenance();
    (known && current.ss_flags & libc::SS_ONSTACK != 0).then(|| (low, low.saturating_add(current.ss_size)))
}

/// Gives the calling thread an alternate signal stack at `base` unless it has one.
pub fn use_stack(base: Addr) -> bool {
    let mut current = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: queries into a live structure.
    let known = unsafe { libc::sigaltstack(core::ptr::null(), &raw mut current) } == 0;
    if !known || current.ss_flags & libc::SS_DISABLE == 0 {
        return false;
    }
    let stack = libc::stack_t { ss_sp: base.as_ptr(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the caller hands over STACK_BYTES of mapped memory that nothing else uses.
    unsafe { libc::sigaltstack(&raw const stack, core::ptr::null_mut()) == 0 }
}

/// Takes the alternate stack at `base` from the calling thread, if it still uses that one.
pub fn leave_stack(base: Addr) {
    let mut current = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: queries into a live structure.
    let known = unsafe { libc::sigaltstack(core::ptr::null(), &raw mut current) } == 0;
    if known && Addr::of(current.ss_sp.cast::<u8>()) == base && current.ss_flags & libc::SS_DISABLE == 0 {
        let off = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: disables this thread's alternate stack.
        unsafe { libc::sigaltstack(&raw const off, core::ptr::null_mut()) };
    }
}

/// The faulting address of a signal; `None` for a signal that somebody sent.
///
/// # Safety
/// `info` is null or what the kernel passed to a handler.
pub unsafe fn fault_address(info: *const siginfo_t) -> Option<Addr> {
    if info.is_null() {
        return None;
    }
    // SAFETY: the kernel passed a live siginfo.
    let code = unsafe { (*info).si_code };
    if code <= 0 || code == SI_KERNEL {
        return None;
    }
    // SAFETY: for fault codes of these signals the address field is set.
    Some(Addr::of(unsafe { (*info).si_addr() }.cast::<u8>()))
}

/// Reads registers and the access from a handler's third argument.
///
/// # Safety
/// `context` is null or what the kernel passed to a handler.
pub unsafe fn context(context: *const c_void) -> Context {
    let context = context.cast::<libc::ucontext_t>();
    if context.is_null() {
        return Context::default();
    }
    // SAFETY: the kernel passed a live ucontext.
    let registers = unsafe { (*context).uc_mcontext.gregs };
    let register = |index: c_int| {
        let value = usize::try_from(index).ok().and_then(|index| registers.get(index)).copied();
        value.unwrap_or(0).cast_unsigned() as usize
    };
    let page_fault = register(libc::REG_TRAPNO) == PAGE_FAULT;
    let error = register(libc::REG_ERR);
    Context {
        pc: register(libc::REG_RIP),
        registers: BY_DWARF_NUMBER.map(register),
        write: page_fault.then_some(error & 2 != 0),
        fetch: page_fault && error & 16 != 0,
    }
}
