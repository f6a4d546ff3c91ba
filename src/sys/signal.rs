//! Signals: handling SIGSEGV and SIGBUS, relaying other signals to the program's handlers, and ending by a signal.
//!
//! The kernel calls [`fault_entry`] for the fault signals. It asks the [`Receiver`] what follows ([`Next`]): a return,
//! or a handler of the program's, on the stack and with the frame that the kernel would have given it
//! ([`super::deliver`]). The kernel calls [`relay_entry`] for other signals whose handler is to run on the program's
//! alternate stack. Both entries work on a stack of ours ([`super::stacks`]), with all signals but faults blocked until
//! that stack is left. After that no frame of ours is left on any stack, and no signal finds us there. Work that may
//! take long is done with the program's signals allowed ([`with_interrupted_mask`]).

use super::action::{self, Action, FAULT_SIGNALS};
use super::{deliver, file, stacks};
use crate::addr::Addr;
use core::mem::offset_of;
use core::sync::atomic::{AtomicUsize, Ordering};
use libc::{c_int, c_ulong, c_void, siginfo_t};

/// The signal code of faults for which the kernel knows no address.
const SI_KERNEL: c_int = 0x80;
/// The code of a fault that a protection key made, and where the key is in `siginfo_t`.
const SEGV_PKUERR: c_int = 4;
const KEY_OFFSET: usize = 32;
/// The flag of a disposition that says what its handlers return to.
pub const SA_RESTORER: c_int = 0x0400_0000;

/// The processor's number of the exception.
const PAGE_FAULT: usize = 14;

/// What a fault's context says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The faulting instruction.
    pub pc: usize,
    /// The registers, by their DWARF numbers.
    pub registers: [usize; 16],
    /// The flags register.
    pub flags: usize,
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
    // SAFETY: `info` is not null, and the kernel's with this code, which sets the word at that offset.
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
    /// The signals that are blocked while it runs.
    pub mask: u64,
}

impl Next {
    /// Where the signal interrupted the program.
    pub const RETURN: Self = Self { handler: 0, info: 0, context: 0, stack: 0, mask: 0 };
}

/// What becomes of a fault. Its function is named in the code of [`fault_entry`]: no pointer to it lies in memory that
/// can be written.
pub trait Receiver {
    /// The signal, what the kernel passed with it, and whether the thread was handling a fault already.
    ///
    /// # Safety
    /// `info` and `context` are what the kernel passed to a handler that goes on as the result says.
    unsafe fn on_fault(number: c_int, info: *mut siginfo_t, context: *mut c_void, nested: bool) -> Next;
}

/// The address of the entry that was installed, to know it by; it is not called from here.
static FAULT_ENTRY: AtomicUsize = AtomicUsize::new(0);

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

/// What the kernel calls: `$choose` says on which stack to go on, `$dispatch` what is to follow, in a [`Next`].
///
/// Registers need no saving: returning from the signal restores them all. In those that functions keep: `ebx` the signal,
/// `r12` the kernel's frame and then the handler, `r13` and `r14` the other arguments, `r15` what `$choose` lent,
/// `rbp` the mask. The mask is set, by the system call, when no stack of ours is in use any more.
macro_rules! signal_entry {
    ($choose:path, $dispatch:path) => {
        core::arch::naked_asm!(
            "mov ebx, edi",
            "mov r12, rsp",
            "mov r13, rsi",
            "mov r14, rdx",
            "mov rdi, rsp",
            "sub rsp, 8",
            "call {choose}",
            "mov r15, rdx",
            "mov rsp, rax",
            "and rsp, -16",
            "sub rsp, 48",
            "mov edi, ebx",
            "mov rsi, r13",
            "mov rdx, r14",
            "mov rcx, rsp",
            "call {dispatch}",
            "mov rax, [rsp + {handler}]",
            "test rax, rax",
            "jz 2f",
            "mov r12, rax",
            "mov r13, [rsp + {info}]",
            "mov r14, [rsp + {context}]",
            "mov rbp, [rsp + {mask}]",
            "mov rsp, [rsp + {stack}]",
            "test r15, r15",
            "jz 4f",
            "sub rsp, 8",
            "mov rdi, r15",
            "call {end_loan}",
            "add rsp, 8",
            "4:",
            "push rbp",
            "mov edi, {set}",
            "mov rsi, rsp",
            "xor edx, edx",
            "mov r10d, 8",
            "mov eax, {sigprocmask}",
            "syscall",
            "pop rbp",
            "mov edi, ebx",
            "mov rsi, r13",
            "mov rdx, r14",
            "xor eax, eax",
            "jmp r12",
            "2:",
            "mov rsp, r12",
            "test r15, r15",
            "jz 3f",
            "sub rsp, 8",
            "mov rdi, r15",
            "call {end_loan}",
            "add rsp, 8",
            "3:",
            "ret",
            choose = sym $choose,
            dispatch = sym $dispatch,
            end_loan = sym stacks::end_loan,
            handler = const offset_of!(Next, handler),
            info = const offset_of!(Next, info),
            context = const offset_of!(Next, context),
            mask = const offset_of!(Next, mask),
            stack = const offset_of!(Next, stack),
            set = const libc::SIG_SETMASK,
            sigprocmask = const libc::SYS_rt_sigprocmask,
        )
    };
}

const _: () = assert!(size_of::<Next>() <= 48, "the room that the entries have for it");

/// The kernel's handler of the fault signals.
#[unsafe(naked)]
extern "C" fn fault_entry<R: Receiver>(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    signal_entry!(stacks::choose, receive::<R>)
}

/// The kernel's handler of other signals whose program's handler asked for the alternate stack.
#[unsafe(naked)]
extern "C" fn relay_entry(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    signal_entry!(stacks::choose_if_own, relay)
}

unsafe extern "C" fn receive<R: Receiver>(
    number: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
    next: *mut Next,
) {
    // SAFETY: the kernel passed both.
    if unsafe { deliver::hold(number, info, context.cast(), stacks::handles_fault()) } {
        // SAFETY: `fault_entry` passes room on its stack.
        unsafe { next.write(Next::RETURN) };
        return;
    }
    let first = stacks::begin_fault();
    // SAFETY: the kernel passed both, and `fault_entry` goes on as the result says.
    let result = unsafe { R::on_fault(number, info, context, !first) };
    if first {
        stacks::end_fault();
    }
    // SAFETY: `fault_entry` passes room on its stack.
    unsafe { next.write(result) };
}

unsafe extern "C" fn relay(number: c_int, info: *mut siginfo_t, context: *mut c_void, next: *mut Next) {
    // SAFETY: the kernel passed both, and `relay_entry` goes on as the result says, and passes room on its stack.
    unsafe { next.write(deliver::relay(number, info, context)) };
}

/// What entries block: all but what a thread's own instructions raise, and what stands for the blocked ones of them, which tells
/// in an entry what was blocked when its signal came.
const BLOCKED: u64 = !super::action::SYNCHRONOUS & !super::action::STAND_IN;

/// Makes `R` receive the fault signals, in the place of the present receiver, and keeps the dispositions found as the program's.
pub fn install<R: Receiver>() {
    let entry = fault_entry::<R> as *const () as usize;
    let before = FAULT_ENTRY.swap(entry, Ordering::AcqRel);
    if before == entry {
        return;
    }
    for signal in FAULT_SIGNALS {
        let old = set(signal, entry, FAULT_FLAGS, BLOCKED);
        if before == 0 || old.handler != before {
            let flags = c_int::try_from(old.flags).unwrap_or(0) & !SA_RESTORER;
            action::update(signal, |_| Some(Action { handler: old.handler, flags, mask: old.mask }));
        }
    }
}

/// The flags of [`fault_entry`].
const FAULT_FLAGS: c_int = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;

/// The handler that the kernel names for a signal.
fn kernels(signal: c_int) -> Option<usize> {
    let mut old = KernelAction::default();
    let none = core::ptr::null::<KernelAction>();
    // SAFETY: nothing is set, and the structure for the answer is live and the kernel's own layout.
    let status = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut old, 8_usize) };
    (status == 0).then_some(old.handler)
}

/// Lets the kernel ignore a fault signal whose handler is ours; whether it was.
pub(super) fn ignore(signal: c_int) -> bool {
    let entry = FAULT_ENTRY.load(Ordering::Relaxed);
    let ours = entry != 0 && kernels(signal) == Some(entry);
    if ours {
        set(signal, libc::SIG_IGN, 0, 0);
    }
    ours
}

/// Takes a fault signal again that the kernel ignores.
pub(super) fn take_again(signal: c_int) {
    let entry = FAULT_ENTRY.load(Ordering::Relaxed);
    if entry != 0 && kernels(signal) == Some(libc::SIG_IGN) {
        set(signal, entry, FAULT_FLAGS, BLOCKED);
    }
}

/// Takes [`install`] back: the kernel has again what was found.
pub fn uninstall() {
    if FAULT_ENTRY.swap(0, Ordering::AcqRel) != 0 {
        for signal in FAULT_SIGNALS {
            let Action { handler, flags, mask } = action::get(signal);
            set(signal, handler, flags, mask);
        }
    }
}

/// Whether a handler that the kernel names is one of the entries here: what the program wants is in [`action`].
pub fn is_entry(handler: usize) -> bool {
    handler == relay_entry as *const () as usize
        || handler == FAULT_ENTRY.load(Ordering::Relaxed) && handler != 0
}

/// The kernel's disposition for a signal whose handler, `action`, is to be called by [`relay_entry`].
pub fn relayed(action: Action) -> Action {
    let handler = relay_entry as *const () as usize;
    Action { handler, flags: action.flags | libc::SA_SIGINFO, mask: BLOCKED }
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

/// Whether the signal, handed on by [`super::deliver::forward`], ends the process.
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

/// Whether nothing is mapped at a fault's address, or a guard marker is there.
///
/// # Safety
/// `info` is null or what the kernel passed to a handler.
pub unsafe fn is_unmapped(signal: c_int, info: *const siginfo_t) -> bool {
    /// `SEGV_MAPERR`.
    const UNMAPPED: c_int = 1;
    // SAFETY: live if not null, as the caller says.
    signal == libc::SIGSEGV && !info.is_null() && unsafe { (*info).si_code } == UNMAPPED
}

/// Gives a signal its default disposition, so that it ends the process.
pub fn restore_default(signal: c_int) {
    set(signal, libc::SIG_DFL, 0, 0);
}

/// Ends the process by the signal that is being handled, whatever its thread does meanwhile: the default disposition, and
/// the same signal once more, with what the kernel said of it, blocked until the handler returns. It comes before the
/// interrupted instruction, which may not fault any more, and a core file shows that instruction and its fault.
///
/// # Safety
/// `info` is null or what the kernel passed to the handler.
pub unsafe fn end_at_return(signal: c_int, info: *const siginfo_t) {
    restore_default(signal);
    action::block(action::bit(signal));
    // SAFETY: as the caller says; to oneself one may send what the kernel sends.
    let sent = !info.is_null()
        && unsafe {
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), signal, info)
        } == 0;
    if !sent {
        raise(signal);
    }
}

/// The signal by which the C library cancels a thread.
const CANCEL: c_int = 32;

/// Runs `action`, which may take long, with the signals allowed that are not blocked where the handler's signal came.
/// Their handlers run on the stack that this runs on, may jump out of it, and have their faults handled. Faults are let
/// through in any case; that the thread is cancelled is not.
///
/// # Safety
/// `context` is null or what the kernel passed to the handler.
pub unsafe fn with_interrupted_mask<R>(context: *const c_void, action: impl FnOnce() -> R) -> R {
    if context.is_null() || !stacks::keeps_frames() {
        return action();
    }
    // SAFETY: as the caller says.
    let programs = unsafe { deliver::interrupted_mask(context.cast()) };
    let (blocked, handles_fault) = (action::block(0), stacks::handles_fault());
    stacks::end_fault();
    action::set_mask(programs & !action::FAULTS | action::bit(CANCEL));
    let result = action();
    action::set_mask(blocked);
    if handles_fault {
        stacks::begin_fault();
    }
    result
}

/// Says that the stack that a signal's handler is to run on has no room for it.
pub(super) fn note_no_room() {
    without_sigpipe(|| {
        file::write_stderr(b"fencepost: a signal finds no room on the stack of its handler\n")
    });
}

/// Sends a signal to the calling thread, or to any of the process's where a filter does not tell which it is.
pub fn raise(signal: c_int) {
    // SAFETY: sending a signal has no memory effect, here and below.
    if unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal) } != 0 {
        // SAFETY: sending a signal takes numbers and touches no memory of the caller.
        unsafe { libc::syscall(libc::SYS_kill, libc::getpid(), signal) };
    }
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

/// Runs `action` with SIGPIPE and SIGXFSZ blocked, and discards those that it caused: a reader that is gone, or a file
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
        flags: register(libc::REG_EFL),
        write: page_fault.then_some(error & 2 != 0),
        fetch: page_fault && error & 16 != 0,
    }
}
