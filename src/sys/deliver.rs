//! Handing a fault that is not ours to the program, as the kernel would have delivered it.
//!
//! The kernel has our handler, on an alternate stack where there is one. What the program asked for is done
//! here instead: its mask is blocked, a one-shot disposition reset, and where it did not ask for the
//! alternate stack, the signal's frame is moved to the stack that was interrupted:
//!
//! ```text
//! frame:  | return address | ucontext (304 bytes) | siginfo (128) |  ...  | vector state |   red zone
//!         ^ stack pointer of the handler                                                 ^ 128 bytes, then
//!                                                                                          what was interrupted
//! ```
//!
//! The handler returns into `rt_sigreturn`, which finds the frame by the stack pointer: nothing depends on
//! the frame that the kernel made any more.

use super::action::{self, bit};
use super::signal::{self, Next, restorer};
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

/// Does what the program wants done with a signal. Where that is the default, the kernel's disposition is
/// restored: the instruction that is returned to faults again and ends the process.
///
/// # Safety
/// `info` and `context` are what the kernel passed to the handler that returns the result.
pub unsafe fn hand_on(number: c_int, info: *mut siginfo_t, context: *mut c_void) -> Next {
    let one_shot = |action: action::Action| {
        let reset = action.is_handler() && action.flags & libc::SA_RESETHAND != 0;
        reset.then_some(action::Action { handler: libc::SIG_DFL, ..action })
    };
    let mut action = action::get(number);
    if one_shot(action).is_some() {
        action = action::update(number, one_shot);
    }
    // SAFETY: the kernel passed a live siginfo.
    let sent = info.is_null() || unsafe { (*info).si_code } <= 0;
    if !action.is_handler() {
        // The kernel lets nobody ignore a fault.
        if !sent || action.handler == libc::SIG_DFL {
            end(number, sent);
        }
        return Next::RETURN;
    }
    let mut next = Next {
        handler: action.handler,
        info: info.addr(),
        context: context.addr(),
        stack: context.addr().wrapping_sub(size_of::<usize>()),
    };
    // SAFETY: as the caller says.
    if action.flags & libc::SA_ONSTACK == 0 && unsafe { has_switched(context.cast()) } {
        // SAFETY: as above.
        match unsafe { move_frame(info, context.cast()) } {
            Some(frame) => {
                next.stack = frame;
                next.context = frame.wrapping_add(size_of::<usize>());
                next.info = next.context.wrapping_add(CONTEXT_BYTES);
            }
            // As the kernel does when a stack has no room for a signal.
            None => {
                end(number, sent);
                return Next::RETURN;
            }
        }
    }
    let own = if action.flags & libc::SA_NODEFER == 0 { bit(number) } else { 0 };
    action::block(action.mask | own);
    next
}

/// Ends the process by the signal: at the return if it is a fault, here if somebody sent it.
fn end(number: c_int, sent: bool) {
    signal::restore_default(number);
    if sent {
        signal::raise(number);
    }
}

/// Whether the kernel went to the alternate stack for this signal.
///
/// # Safety
/// `context` is what the kernel passed to a handler.
unsafe fn has_switched(context: *const ucontext_t) -> bool {
    // SAFETY: as the caller says.
    let stack = unsafe { (*context).uc_stack };
    let holds = |address: usize| address.wrapping_sub(stack.ss_sp.addr()) < stack.ss_size;
    // SAFETY: as above.
    let interrupted = unsafe { signal::context(context.cast()) }.sp();
    holds(context.addr()) && !holds(interrupted)
}

/// Copies the signal's frame to the interrupted stack; the address of the copy, `None` if there is no room.
///
/// # Safety
/// `info` and `context` are what the kernel passed to a handler that runs on another stack.
unsafe fn move_frame(info: *const siginfo_t, context: *const ucontext_t) -> Option<usize> {
    // SAFETY: as the caller says.
    let sp = unsafe { signal::context(context.cast()) }.sp();
    // SAFETY: as above; the pointer lies within the kernel's context.
    let state = unsafe { context.byte_add(STATE_OFFSET).cast::<*const u8>().read() };
    // SAFETY: the kernel's pointer to the state it saved, or null.
    let state_bytes = unsafe { state_bytes(state) };
    let top = sp.checked_sub(RED_ZONE)?;
    let new_state = top.checked_sub(state_bytes)? & !63;
    // A function finds its stack pointer 8 past a multiple of 16.
    let frame = (new_state.checked_sub(FRAME_BYTES)? & !15).checked_sub(size_of::<usize>())?;
    if !is_writable(frame, top) {
        return None;
    }
    let new_context = frame.checked_add(size_of::<usize>())?;
    let new_info = new_context.checked_add(CONTEXT_BYTES)?;
    // SAFETY: from `frame` to `top` lies writable stack that the interrupted function does not use, and the
    // parts do not overlap; the sources are the kernel's, on another stack.
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
