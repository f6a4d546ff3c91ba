//! Delivers a signal to the program's handler as the kernel would have delivered it.
//!
//! The kernel has our handler, on a stack of ours where the thread has one ([`super::stacks`]). This module does what
//! the program asked the kernel for: it blocks the handler's mask, resets a one-shot disposition, and moves the
//! signal's frame to the stack that the kernel would have taken. That is the program's alternate stack, or the one that
//! was interrupted:
//!
//! ```text
//! frame:  | return address | ucontext (304 bytes) | siginfo (128) |  ...  | vector state |   red zone
//!         ^ stack pointer of the handler                                                 ^ 128 bytes, then
//!                                                                                          the interrupted code's stack
//! ```
//!
//! The handler returns into `rt_sigreturn`, which finds the frame by the stack pointer. So nothing depends on the
//! kernel's frame any more. The frame names our stack as the alternate one, since `rt_sigreturn` gives that to the
//! kernel.
//!
//! While the fault handler writes a report the program's signals come ([`signal::with_interrupted_mask`]). Their frames
//! stay on our stack, below the report. The kernel takes our stack for the alternate one in use. It would start at the
//! top of it again for a signal that comes while a handler of the program's runs elsewhere.
//!
//! # Fault signals that were sent
//!
//! SIGSEGV and SIGBUS are blocked in name only ([`super::action::change_mask`]), so a fault reaches the handler in any
//! case. A signal that was sent (`kill`, `sigqueue`, a timer) has to wait nevertheless, until the program unblocks it
//! or takes it (`sigwait`, `signalfd`). So the handler blocks it in the thread that received it, for the kernel as
//! well, and queues it again:
//!
//! | step | the signal |
//! |---|---|
//! | it comes to a thread that has it blocked in name | is with the handler |
//! | blocked in the handler, and in the mask that the handler returns to | the same |
//! | queued again, to the thread or the process as before | is pending, or with a thread that does not block it |
//! | the program changes its mask | comes again, and stays if it is still blocked in name |
//!
//! A fault of the thread meanwhile meets the real block, and the kernel ends the process.
//!
//! A signal may come although the interrupted mask blocks it, in the kernel or in name. Then a wait with a mask of its own
//! (`sigsuspend`, `ppoll`) allowed it, and the program wants it now. Of what is blocked in name, the handler's own mask tells: the
//! entries do not block the stand-in. A wait that blocks SIGSTKFLT itself looks as if it did not allow the signal, which then comes after it. The program also gets a signal that arrives while a fault is
//! handled, once that is over.

use super::action::{self, Action, bit};
use super::signal::{self, Next, restorer};
use super::stacks::{self, Room};
use super::{process, thread};
use crate::addr::{Addr, PAGE_SIZE};
use core::mem::{offset_of, size_of};
use libc::{c_int, c_void, mcontext_t, siginfo_t, ucontext_t};

/// Bytes of the kernel's `struct ucontext`, which the C library's begins like.
const CONTEXT_BYTES: usize = offset_of!(ucontext_t, uc_sigmask) + size_of::<u64>();
/// Where in it the pointer to the vector state is: behind the general registers. Not every C library gives the
/// field a name.
const STATE_OFFSET: usize =
    offset_of!(ucontext_t, uc_mcontext) + offset_of!(mcontext_t, gregs) + size_of::<[u64; 23]>();
/// Bytes of a frame without the vector state.
const FRAME_BYTES: usize = size_of::<usize>() + CONTEXT_BYTES + size_of::<siginfo_t>();
const RED_ZONE: usize = 128;

/// Bytes of the vector state without extensions; those say themselves how long they are.
const LEGACY_BYTES: usize = 512;
/// Where the legacy state holds the kernel's words, and their first if there are extensions.
const SOFTWARE_OFFSET: usize = 464;
const EXTENDED: u32 = 0x4650_5853;
/// More than any processor's.
const EXTENDED_MOST: usize = 32 << 10;

/// Does what the program wants done with a fault signal. Where that is the default, the process ends by it, in spite of
/// what becomes of the faulting page meanwhile.
///
/// # Safety
/// `info` and `context` are what the kernel passed to the handler that goes on as the result says.
pub unsafe fn forward(number: c_int, info: *mut siginfo_t, context: *mut c_void) -> Next {
    let action = take_action(number);
    if action.is_handler() {
        // SAFETY: as the caller says.
        return unsafe { deliver(number, info, context.cast(), action) };
    }
    // SAFETY: as the caller says.
    let sent = unsafe { is_sent(info) };
    // The kernel lets nobody ignore a fault.
    if !sent || action.handler == libc::SIG_DFL {
        // SAFETY: as the caller says.
        unsafe { signal::end_at_return(number, info) };
    }
    Next::RETURN
}

/// The program's disposition of a fault signal that came; the default from now on if it asked for one shot.
fn take_action(number: c_int) -> Action {
    let one_shot = |action: Action| {
        let reset = action.is_handler() && action.flags & libc::SA_RESETHAND != 0;
        reset.then_some(Action { handler: libc::SIG_DFL, ..action })
    };
    let action = action::get(number);
    if one_shot(action).is_none() {
        return action;
    }
    if process::borrows_memory() {
        // What is remembered is the parent's.
        signal::restore_default(number);
        return action;
    }
    action::update(number, one_shot)
}

/// Goes on in the handler of another signal, which the program wants on its alternate stack. The kernel has done what
/// the flags ask for.
///
/// # Safety
/// As [`forward`].
pub(super) unsafe fn relay(number: c_int, info: *mut siginfo_t, context: *mut c_void) -> Next {
    // SAFETY: as the caller says.
    unsafe { deliver(number, info, context.cast(), action::get(number)) }
}

/// # Safety
/// As [`forward`]; the action is a handler's.
unsafe fn deliver(number: c_int, info: *mut siginfo_t, context: *mut ucontext_t, action: Action) -> Next {
    let own = if action.flags & libc::SA_NODEFER == 0 { bit(number) } else { 0 };
    let mut next = Next {
        handler: action.handler,
        info: info.addr(),
        context: context.addr(),
        stack: context.addr().wrapping_sub(size_of::<usize>()),
        // SAFETY: as the caller says.
        mask: unsafe { interrupted_mask(context) } | action.mask | own,
    };
    // SAFETY: as the caller says.
    let Some(room) = (unsafe { room_for(context, action) }) else { return next };
    // SAFETY: both are the kernel's, as the caller says, and the room is on another stack than their frame.
    match unsafe { move_frame(info, context, room) } {
        Some(frame) => {
            next.stack = frame;
            next.context = frame.wrapping_add(size_of::<usize>());
            next.info = next.context.wrapping_add(CONTEXT_BYTES);
            next
        }
        // As the kernel does when a stack has no room for a signal.
        None => {
            // SAFETY: as the caller says.
            unsafe { signal::with_interrupted_mask(context.cast(), signal::note_no_room) };
            let (number, info) = if action::is_fault(number) {
                (number, info.cast_const())
            } else {
                (libc::SIGSEGV, core::ptr::null())
            };
            // SAFETY: as the caller says.
            unsafe { signal::end_at_return(number, info) };
            Next::RETURN
        }
    }
}

/// The signals that were blocked where a signal came.
///
/// # Safety
/// `context` is what the kernel passed to a handler.
pub(super) unsafe fn interrupted_mask(context: *const ucontext_t) -> u64 {
    // SAFETY: the kernel's context has the mask there, in a word.
    unsafe { context.byte_add(offset_of!(ucontext_t, uc_sigmask)).cast::<u64>().read() }
}

/// Says what is to be blocked once the handler returns.
///
/// # Safety
/// As [`interrupted_mask`].
pub(super) unsafe fn set_interrupted_mask(context: *mut ucontext_t, mask: u64) {
    // SAFETY: the kernel's context has the mask there, in a word, and lives until the handler returns.
    unsafe { context.byte_add(offset_of!(ucontext_t, uc_sigmask)).cast::<u64>().write(mask) };
}

/// Whether a signal's handler began on the thread's stack of ours, and what the signal interrupted was not there: what
/// ran on that stack before is over.
///
/// # Safety
/// As [`interrupted_mask`].
pub unsafe fn begins_own_stack(context: *const c_void) -> bool {
    // SAFETY: as the caller says.
    let sp = unsafe { signal::context(context) }.sp();
    stacks::own().is_some_and(|own| own.holds(context.addr()) && !own.holds(sp))
}

/// Where the frame of a signal belongs, `None` if the kernel put it there.
///
/// # Safety
/// `context` is what the kernel passed to a handler.
unsafe fn room_for(context: *const ucontext_t, action: Action) -> Option<Room> {
    // SAFETY: as the caller says.
    let stack = unsafe { (*context).uc_stack };
    // SAFETY: `context` is the kernel's, as the caller says, and a `ucontext_t` for `signal::context` too.
    let sp = unsafe { signal::context(context.cast()) }.sp();
    let holds = |address: usize| address.wrapping_sub(stack.ss_sp.addr()) < stack.ss_size;
    let switched = stack.ss_flags & libc::SS_DISABLE == 0 && holds(context.addr()) && !holds(sp);
    if !switched {
        return None;
    }
    let on_alternate = action.flags & libc::SA_ONSTACK != 0;
    let ours = stacks::own().filter(|own| own.is(&stack));
    if on_alternate && (ours.is_none() || process::calls_kernel()) {
        return None;
    }
    let programs = ours.and_then(stacks::Own::room_of_programs);
    let interrupted = Room { floor: 0, top: sp.saturating_sub(RED_ZONE) };
    Some(match programs {
        // Also of handlers that did not ask for it: they stay on the stack that they interrupted.
        Some(room) if room.holds(sp) => Room { floor: room.floor, ..interrupted },
        Some(room) if on_alternate => room,
        _ => interrupted,
    })
}

/// Copies a signal's frame to the top of `room`; the address of the copy, `None` if there is no room.
///
/// # Safety
/// `info` and `context` are what the kernel passed to a handler, on a stack that `room` is no part of.
unsafe fn move_frame(info: *const siginfo_t, context: *const ucontext_t, room: Room) -> Option<usize> {
    // SAFETY: the pointer lies within the kernel's context.
    let state = unsafe { context.byte_add(STATE_OFFSET).cast::<*const u8>().read() };
    // SAFETY: the kernel's pointer to the state it saved, or null.
    let state_bytes = unsafe { state_bytes(state) };
    let new_state = room.top.checked_sub(state_bytes)? & !63;
    // A function finds its stack pointer 8 past a multiple of 16.
    let frame = (new_state.checked_sub(FRAME_BYTES)? & !15).checked_sub(size_of::<usize>())?;
    if frame < room.floor || !is_writable(frame, room.top) {
        return None;
    }
    let new_context = frame.checked_add(size_of::<usize>())?;
    let new_info = new_context.checked_add(CONTEXT_BYTES)?;
    // SAFETY: from `frame` to the top of the room lies writable stack that the interrupted function does not use, and
    // the parts do not overlap; the sources are the kernel's, on another stack.
    unsafe {
        Addr::new(frame).as_ptr::<usize>().write(restorer as *const () as usize);
        let copy = Addr::new(new_context).as_ptr::<u8>();
        copy.copy_from_nonoverlapping(context.cast::<u8>(), CONTEXT_BYTES);
        let copied_info = Addr::new(new_info).as_ptr::<u8>();
        copied_info.copy_from_nonoverlapping(info.cast::<u8>(), size_of::<siginfo_t>());
        if !state.is_null() {
            let copied_state = Addr::new(new_state).as_ptr::<u8>();
            copied_state.copy_from_nonoverlapping(state, state_bytes);
            copy.add(STATE_OFFSET).cast::<*mut u8>().write(copied_state);
        }
    }
    Some(frame)
}

/// # Safety
/// `state` is null or the vector state of a signal's frame.
unsafe fn state_bytes(state: *const u8) -> usize {
    if state.is_null() {
        return 0;
    }
    // SAFETY: within the legacy state, which is always there, and aligned.
    let [magic, bytes] = unsafe { state.add(SOFTWARE_OFFSET).cast::<[u32; 2]>().read() };
    match usize::try_from(bytes) {
        Ok(bytes) if magic == EXTENDED && (LEGACY_BYTES..EXTENDED_MOST).contains(&bytes) => bytes,
        _ => LEGACY_BYTES,
    }
}

/// Whether the bytes from `low` to `high` can be written, found out by letting the kernel write a word to
/// each page: it lets a stack grow as it would for the program, and says where there is none.
fn is_writable(low: usize, high: usize) -> bool {
    let mut at = low & !7;
    while at < high {
        let word = Addr::new(at).as_ptr::<u64>();
        let none = core::ptr::null::<u64>();
        // SAFETY: asks for the mask; the kernel writes it to memory that nobody uses or refuses.
        let status = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, none, word, 8_usize) };
        if status != 0 {
            return false;
        }
        at = (at | (PAGE_SIZE - 1)).saturating_add(1);
    }
    true
}

const _: () = assert!(CONTEXT_BYTES == 304 && STATE_OFFSET == 224, "the kernel's ucontext on x86-64");

/// Whether a signal was sent, and is no fault.
///
/// # Safety
/// `info` is null or what the kernel passed to a handler.
pub unsafe fn is_sent(info: *const siginfo_t) -> bool {
    // SAFETY: live if not null, as the caller says.
    info.is_null() || unsafe { (*info).si_code } <= 0
}

/// Keeps a signal that was sent pending, where the program takes it for blocked, or while a fault is handled (`busy`);
/// `false` if it is to be delivered.
///
/// # Safety
/// `info` and `context` are what the kernel passed to the handler of a fault signal.
pub(super) unsafe fn hold(
    number: c_int,
    info: *const siginfo_t,
    context: *mut ucontext_t,
    busy: bool,
) -> bool {
    let own = bit(number);
    // SAFETY: as the caller says.
    if info.is_null() || !unsafe { is_sent(info) } {
        return false;
    }
    // SAFETY: `context` is what the kernel passed, as the caller says.
    let mask = unsafe { interrupted_mask(context) };
    // A wait with a mask of its own, in force until here, may have allowed it.
    let in_name = action::named_in(mask) & own != 0 && action::stands_in(action::block(0));
    if mask & own != 0 || !(busy || in_name) {
        return false;
    }
    action::block(own);
    // SAFETY: `info` and `context` are what the kernel passed, and `info` was not null.
    unsafe {
        set_interrupted_mask(context, mask | own);
        queue_again(number, info);
    }
    true
}

/// Takes back what was sent of a signal that the program ignores from now on, and that waits, as the kernel would. Those
/// that were sent to other threads by name stay.
pub fn discard(number: c_int) {
    let own = bit(number);
    let before = action::block(own);
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // One of each kind may wait, and more of a queue's.
    for _ in 0..WAITING {
        // SAFETY: the set is a live word of the stated size; nothing is to be said of the signal.
        let taken = unsafe {
            let nothing = core::ptr::null_mut::<siginfo_t>();
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const own, nothing, &raw const at_once, 8_usize)
        };
        if taken < 0 {
            break;
        }
    }
    action::set_mask(before);
}

/// A filter may answer that there is one whenever it is asked.
const WAITING: u32 = 16;

/// Queues a signal once more, with what was said of it, for whom it was sent to.
///
/// # Safety
/// As [`hold`].
unsafe fn queue_again(number: c_int, info: *const siginfo_t) {
    let thread = thread::id();
    // SAFETY: the kernel reads a live structure, here and below. It takes the codes of its own from the thread that a
    // signal goes to alone, and finds the process by any of its threads.
    let status = unsafe {
        match (*info).si_code {
            libc::SI_TKILL => -1,
            _ => libc::syscall(libc::SYS_rt_sigqueueinfo, thread, number, info),
        }
    };
    if status != 0 {
        // SAFETY: the kernel reads the structure, which is live until the handler returns.
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), thread, number, info) };
    }
}
