//! Signals: taking SIGSEGV and SIGBUS over, and ending by a signal.
//!
//! The kernel calls [`entry`], which asks the handler what is to follow ([`Next`]): return, or go on in a
//! handler of the program, on the stack and with the frame that the kernel would have given it
//! ([`super::deliver`]). Nothing of ours is left on the stack then.

use super::action::{self, Action, FAULT_SIGNALS};
use crate::addr::Addr;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use libc::{c_int, c_ulong, c_void, siginfo_t};

/// The signal code of faults for which the kernel knows no address.
const SI_KERNEL: c_int = 0x80;
/// The code of a fault that a protection key made, and where the key is in `siginfo_t`.
const SEGV_PKUERR: c_int = 4;
const KEY_OFFSET: usize = 32;
const SA_RESTORER: c_int = 0x0400_0000;

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

/// The protection key that made a fault, if one did.
///
/// # Safety
/// `info` is null or what the kernel passed to a handler.
pub unsafe fn denying_key(number: c_int, info: *const siginfo_t) -> Option<u32> {
    // SAFETY: live if not null, as the caller says.
    let denied = number == libc::SIGSEGV && !info.is_null() && unsafe { (*info).si_code } == SEGV_PKUERR;
    // SAFETY: as above; with this code the kernel sets the word there.
    denied.then(|| unsafe { info.cast::<u8>().add(KEY_OFFSET).cast::<u32>().read() })
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

/// Where the program goes on when a handler of ours is done.
#[repr(C)]
pub struct Next {
    /// The program's handler; 0 for where the signal interrupted it.
    pub handler: usize,
    /// Its second argument.
    pub info: usize,
    /// Its third argument.
    pub context: usize,
    /// Its stack pointer, at its return address.
    pub stack: usize,
}

impl Next {
    /// Where the signal interrupted the program.
    pub const RETURN: Self = Self { handler: 0, info: 0, context: 0, stack: 0 };
}

/// A handler: the signal, and what the kernel passed with it.
pub type Handler = fn(c_int, *mut siginfo_t, *mut c_void) -> Next;

static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: c_ulong,
    restorer: usize,
    mask: u64,
}

/// What a handler returns to, byte for byte what unwinders and debuggers know a signal frame by.
#[unsafe(naked)]
pub(super) extern "C" fn restorer() {
    core::arch::naked_asm!(".byte 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0", "syscall")
}

/// What the kernel calls. Registers need no saving: returning from the signal restores them all.
#[unsafe(naked)]
extern "C" fn entry(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    core::arch::naked_asm!(
        "sub rsp, 40",
        "mov ebx, edi",
        "mov rcx, rsp",
        "call {dispatch}",
        "mov rax, [rsp + {handler}]",
        "test rax, rax",
        "jz 2f",
        "mov edi, ebx",
        "mov rsi, [rsp + {info}]",
        "mov rdx, [rsp + {context}]",
        "mov rsp, [rsp + {stack}]",
        "jmp rax",
        "2:",
        "add rsp, 40",
        "ret",
        dispatch = sym dispatch,
        handler = const offset_of!(Next, handler),
        info = const offset_of!(Next, info),
        context = const offset_of!(Next, context),
        stack = const offset_of!(Next, stack),
    )
}

unsafe extern "C" fn dispatch(number: c_int, info: *mut siginfo_t, context: *mut c_void, next: *mut Next) {
    let handler = HANDLER.load(Ordering::Acquire);
    let mut result = Next::RETURN;
    if !handler.is_null() {
        // SAFETY: `install` stored a function of this type.
        let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
        result = handler(number, info, context);
    }
    // SAFETY: `entry` passes room on its stack.
    unsafe { next.write(result) };
}

/// Installs `handler` for the fault signals, on the alternate stack where a thread has one, and keeps the
/// dispositions found as the program's. Only the first call does.
pub fn install(handler: Handler) {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    HANDLER.store(handler as *mut (), Ordering::Release);
    for signal in FAULT_SIGNALS {
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let old = set(signal, entry as *const () as usize, flags, 0);
        let flags = c_int::try_from(old.flags).unwrap_or(0) & !SA_RESTORER;
        action::update(signal, |_| Some(Action { handler: old.handler, flags, mask: old.mask }));
    }
}

/// Sets the kernel's disposition of a signal; the one before. By the system call: the C library's
/// function is the front end's to replace.
fn set(signal: c_int, handler: usize, flags: c_int, mask: u64) -> KernelAction {
    let new = KernelAction {
        handler,
        flags: c_ulong::from((flags | SA_RESTORER).cast_unsigned()),
        restorer: restorer as *const () as usize,
        mask,
    };
    let mut old = KernelAction::default();
    // SAFETY: both structures are live and the kernel's own layout; handlers are functions of the right
    // type and live as long as the program.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const new, &raw mut old, 8_usize) };
    old
}

/// Takes a real-time signal that the program does not use and gives it `handler`, which runs with all
/// signals blocked, on the stack that is interrupted. The signal; it stays taken.
pub fn take_unused(handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void)) -> Option<c_int> {
    let unused = (LOWEST_REAL_TIME..=HIGHEST).rev().find(|signal| {
        let mut old = KernelAction { handler: 1, ..KernelAction::default() };
        let none = core::ptr::null::<KernelAction>();
        // SAFETY: the structure is live and the kernel's own layout.
        let status = unsafe { libc::syscall(libc::SYS_rt_sigaction, *signal, none, &raw mut old, 8_usize) };
        status == 0 && (old.handler == libc::SIG_DFL || old.handler == handler as usize)
    })?;
    set(unused, handler as usize, libc::SA_SIGINFO | libc::SA_RESTART, u64::MAX);
    Some(unused)
}

/// Above those that the C library keeps to itself.
const LOWEST_REAL_TIME: c_int = 35;
const HIGHEST: c_int = 64;

/// Whether the signal, handed on by [`super::deliver::hand_on`], ends the process.
pub fn ends_process(signal: c_int) -> bool {
    !action::get(signal).is_handler()
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

/// Gives a signal its default disposition, so that it ends the process.
pub fn restore_default(signal: c_int) {
    set(signal, libc::SIG_DFL, 0, 0);
}

/// Sends a signal to the calling thread.
pub fn raise(signal: c_int) {
    // SAFETY: sending a signal has no memory effect.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal) };
}

/// Ends the process by SIGABRT with its default disposition, so that a core dump shows this frame.
pub fn abort_process() -> ! {
    restore_default(libc::SIGABRT);
    let blocked = action::block(0);
    action::set_mask(blocked & !action::bit(libc::SIGABRT));
    raise(libc::SIGABRT);
    // SAFETY: abort does not return even if that should.
    unsafe { libc::abort() }
}

/// Runs `action` with SIGPIPE and SIGXFSZ held back, and lets none through that came of it: a reader that is gone, or a file
/// as long as it may be (`RLIMIT_FSIZE`), is no reason to end by another signal than the error's.
pub fn without_sigpipe<R>(action: impl FnOnce() -> R) -> R {
    let ours = action::bit(libc::SIGPIPE) | action::bit(libc::SIGXFSZ);
    let mut pending = 0_u64;
    // SAFETY: a live word, of the size that is stated.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut pending, 8_usize) };
    let old = action::block(ours);
    let result = action();
    let mut raised = ours & !pending & !old;
    while raised != 0 {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let none = core::ptr::null_mut::<siginfo_t>();
        // SAFETY: the set and the time are live, the set of the size that is stated.
        let taken = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const raised, none, &raw const at_once, 8_usize)
        };
        match c_int::try_from(taken) {
            Ok(number) if number > 0 => raised &= !action::bit(number),
            _ => break,
        }
    }
    action::set_mask(old);
    result
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
