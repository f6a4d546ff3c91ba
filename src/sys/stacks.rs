//! Signal stacks: the kernel's alternate stack of a thread is the library's own, and the program's is kept beside it.
//!
//! A fault must find room for its frame and for a report, wherever the thread was: at the end of its stack, on a
//! coroutine's, on an alternate stack of 2 KiB. So a thread with a state gives the kernel a stack of ours. The
//! program's own settings by `sigaltstack` are kept in the stack's [`Head`], and [`super::deliver`] moves the frames of
//! the program's signals to where the kernel would have put them. No function of the program's runs on a stack of ours.
//!
//! ```text
//! | closed, 256 KiB | stack, 256 KiB  ...  | head | closed, 256 KiB | stack ... | head | ...
//!                   ^ low                  ^ top
//! ```
//!
//! Stacks lie in a reservation of their own, far from any table, and are opened when they are first used. Further
//! stacks are mapped and opened several at once, and one by one where address space is limited. Where guard markers are
//! used the closed bytes are markers, and stacks that lie together are one mapping. A stack is never unmapped: it waits
//! in a list for the next thread. The kernel writes there, so stacks are not sealed.
//!
//! A program's stack with `SS_AUTODISARM` is the kernel's alternate stack itself: the kernel takes it away while a
//! handler runs and restores it at the end, which no other code can do. Faults then begin there, and continue on our
//! stack.
//!
//! Where a runtime calls the kernel itself ([`super::process`]) no further thread has a stack of ours.
//!
//! The word of a thread, in thread-local storage:
//!
//! | word | meaning | set by |
//! |---|---|---|
//! | 0 | no stack of ours; the kernel has what the program set | [`leave`] |
//! | a head's address | the thread's stack | [`adopt`], with signals blocked |
//! | with [`HANDLING`] | the thread handles a fault | [`begin_fault`], taken back by [`end_fault`], and while the program's signals come |
//!
//! The list of free stacks is one word: the page of the first head, and a number that counts changes. A thread takes
//! the first stack by exchanging the word for the next one. Handlers do so anywhere and wait for nobody.

use super::action::BlockedSignals;
use super::vm::{self, MADV_GUARD_INSTALL};
use super::{process, thread};
use crate::addr::{Addr, PAGE_SHIFT, PAGE_SIZE, PageCount, Span};
use core::mem::size_of;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use libc::{c_int, c_void, stack_t};

/// Bytes of a stack with its head.
const BYTES: usize = 256 << 10;
/// Closed bytes below it.
const GUARD: usize = 256 << 10;
const STRIDE: usize = GUARD + BYTES;
/// Stacks that address space is reserved for.
const AHEAD: usize = 256;
/// The same where address space is limited.
const AHEAD_LIMITED: usize = 1;
/// Stacks beyond them that are mapped at once.
const AT_ONCE: usize = 32;

/// The bit of a thread's word while it handles a fault. Heads are aligned.
const HANDLING: usize = 1;

/// `SS_AUTODISARM` of `linux/signal.h`.
const AUTODISARM: c_int = c_int::MIN;

/// What the program said of a thread's alternate stack, and the stack's place in the list of free ones.
#[repr(C, align(64))]
struct Head {
    low: AtomicUsize,
    size: AtomicUsize,
    /// Without `SS_DISABLE` where that is set, and the reverse: zero bytes say that there is none.
    flags: AtomicI32,
    /// The next head in the list, 0 for none.
    next: AtomicUsize,
}

/// A stack of ours.
#[derive(Clone, Copy)]
pub struct Own(&'static Head);

/// The room that a signal's frame may take on a stack: from `floor` to below `top`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Its lowest address.
    pub floor: usize,
    /// One past its highest.
    pub top: usize,
}

impl Own {
    fn top(self) -> usize {
        core::ptr::from_ref(self.0).expose_provenance()
    }

    fn low(self) -> usize {
        self.top().wrapping_sub(BYTES - size_of::<Head>())
    }

    /// Whether a stack pointer is in it.
    pub fn holds(self, sp: usize) -> bool {
        sp.wrapping_sub(self.low()) <= BYTES - size_of::<Head>()
    }

    /// Whether this is what the kernel calls a thread's alternate stack.
    pub fn is(self, stack: &stack_t) -> bool {
        stack.ss_flags & libc::SS_DISABLE == 0 && stack.ss_sp.addr() == self.low()
    }

    fn as_kernels(self) -> stack_t {
        stack_t { ss_sp: Addr::new(self.low()).as_ptr(), ss_flags: 0, ss_size: BYTES - size_of::<Head>() }
    }

    /// What the program set.
    fn programs(self) -> stack_t {
        stack_t {
            ss_sp: Addr::new(self.0.low.load(Ordering::Relaxed)).as_ptr(),
            ss_flags: self.0.flags.load(Ordering::Relaxed) ^ libc::SS_DISABLE,
            ss_size: self.0.size.load(Ordering::Relaxed),
        }
    }

    /// Remembers what the kernel said of a stack of the program's. Signals are blocked.
    fn set_programs(self, stack: &stack_t) {
        self.0.low.store(stack.ss_sp.expose_provenance(), Ordering::Relaxed);
        self.0.size.store(stack.ss_size, Ordering::Relaxed);
        // Whether a thread is on it is asked anew each time.
        self.0.flags.store((stack.ss_flags & !libc::SS_ONSTACK) ^ libc::SS_DISABLE, Ordering::Relaxed);
    }

    /// The program's alternate stack, if it has one.
    pub fn room_of_programs(self) -> Option<Room> {
        let stack = self.programs();
        let floor = stack.ss_sp.addr();
        (stack.ss_flags & libc::SS_DISABLE == 0 && stack.ss_size != 0)
            .then(|| Room { floor, top: floor.saturating_add(stack.ss_size) })
    }
}

impl Room {
    /// Whether a stack pointer is in it, as the kernel sees it: a stack that nothing was pushed on yet is.
    pub fn holds(self, sp: usize) -> bool {
        sp > self.floor && sp <= self.top
    }
}

/// The reservation: where the next stack lies that was never used, and where it ends.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
/// Stacks that are mapped at once beyond it.
static MORE: AtomicUsize = AtomicUsize::new(1);
/// Whether the closed bytes below a stack are markers.
static MARKERS: AtomicBool = AtomicBool::new(false);
/// The list of free stacks.
static FREE: AtomicU64 = AtomicU64::new(0);
/// Bits of a page number: addresses have 47.
const PAGE_BITS: u32 = 47 - PAGE_SHIFT;
const PAGE_MASK: u64 = (1 << PAGE_BITS) - 1;

/// Reserves address space for the stacks. Called once, at start; `limited` says whether address space is, `markers` whether
/// guard markers are used.
pub fn init(limited: bool, markers: bool) {
    MARKERS.store(markers, Ordering::Relaxed);
    MORE.store(if limited { 1 } else { AT_ONCE }, Ordering::Relaxed);
    let bytes = STRIDE * if limited { AHEAD_LIMITED } else { AHEAD };
    if let Some(base) = vm::closed_tables(bytes) {
        END.store(base.plus(bytes).get(), Ordering::Relaxed);
        NEXT.store(base.get(), Ordering::Release);
    }
}

/// Gives the address space back that was reserved for stacks and not used yet: further ones are mapped one by one.
pub fn cut() {
    MORE.store(1, Ordering::Relaxed);
    let end = END.load(Ordering::Relaxed);
    let start = NEXT.swap(end, Ordering::AcqRel);
    if let Some(bytes) = end.checked_sub(start).filter(|bytes| *bytes != 0) {
        vm::unreserve(Span::new(Addr::new(start), PageCount::holding(bytes)));
    }
}

/// The head of the stack whose last page this is.
fn head_of(page: u64) -> Option<Own> {
    if page == 0 {
        return None;
    }
    let end = (page as usize).wrapping_add(1) << PAGE_SHIFT;
    // SAFETY: the pages in the list are the last ones of stacks, which are open and never unmapped; zero bytes are
    // a head.
    Some(Own(unsafe { &*Addr::new(end).minus(size_of::<Head>()).as_ptr::<Head>() }))
}

fn page_of(own: Own) -> u64 {
    (own.top() >> PAGE_SHIFT) as u64
}

/// A free stack, and whether it was never used; `None` if the kernel grants none.
fn take() -> Option<(Own, bool)> {
    let mut first = FREE.load(Ordering::Acquire);
    while let Some(own) = head_of(first & PAGE_MASK) {
        let next = own.0.next.load(Ordering::Relaxed) as u64 & PAGE_MASK;
        let count = (first >> PAGE_BITS).wrapping_add(1);
        match FREE.compare_exchange(first, count << PAGE_BITS | next, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => return Some((own, false)),
            Err(other) => first = other,
        }
    }
    match reserved() {
        Some(base) => open(base, 1).then(|| at(base, 0)).flatten().map(|own| (own, true)),
        None => beyond().map(|own| (own, true)),
    }
}

/// Maps more stacks than were reserved, and takes the first.
#[cold]
fn beyond() -> Option<Own> {
    let more = MORE.load(Ordering::Relaxed);
    let mapped = |count: usize| vm::closed_tables(STRIDE * count).map(|base| (base, count));
    let (base, count) = mapped(more).or_else(|| mapped(1))?;
    if !open(base, count) {
        return None;
    }
    (1..count).filter_map(|number| at(base, number)).for_each(put_back);
    at(base, 0)
}

/// The stack of this number from `base` on, which is open.
fn at(base: Addr, number: usize) -> Option<Own> {
    head_of((base.plus((number + 1) * STRIDE).get() >> PAGE_SHIFT) as u64 - 1)
}

/// Address space for one more stack, of the reservation.
fn reserved() -> Option<Addr> {
    let end = END.load(Ordering::Relaxed);
    let within = |next: usize| (next < end).then(|| next.wrapping_add(STRIDE));
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok().map(Addr::new)
}

/// Opens so many stacks from `base` on. They stay closed, and their address space unused, if the kernel has no mapping
/// left for them.
fn open(base: Addr, count: usize) -> bool {
    if MARKERS.load(Ordering::Relaxed) && vm::has_guards() {
        let all = Span::new(base, PageCount::holding(count * STRIDE));
        return vm::commit(all) && vm::unseal(all) && (0..count).all(|number| close_below(base, number));
    }
    (0..count).all(|number| {
        let stack = Span::new(base.plus(number * STRIDE + GUARD), PageCount::holding(BYTES));
        vm::commit(stack) && vm::unseal(stack)
    })
}

/// Closes what lies below a stack. The kernel refuses markers in locked memory.
fn close_below(base: Addr, number: usize) -> bool {
    let below = Span::new(base.plus(number * STRIDE), PageCount::holding(GUARD));
    vm::advise(below, MADV_GUARD_INSTALL) || vm::decommit(below)
}

/// Puts a stack back that is not used any more.
fn put_back(own: Own) {
    let mut first = FREE.load(Ordering::Relaxed);
    loop {
        own.0.next.store((first & PAGE_MASK) as usize, Ordering::Relaxed);
        let count = (first >> PAGE_BITS).wrapping_add(1);
        let new = count << PAGE_BITS | page_of(own);
        match FREE.compare_exchange(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

/// The calling thread's stack of ours.
pub fn own() -> Option<Own> {
    let head = thread::signal_stack() & !HANDLING;
    // SAFETY: the word is 0 or the address of a head, which is never unmapped.
    (head != 0).then(|| Own(unsafe { &*Addr::new(head).as_ptr::<Head>() }))
}

const NOTHING: stack_t = stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };

/// The system call: the C library's function is the front end's to replace.
///
/// # Safety
/// As the manual says; what is pointed to may be anywhere.
unsafe fn kernel(new: *const stack_t, old: *mut stack_t) -> Result<(), c_int> {
    // SAFETY: as the caller says; the kernel looks at the addresses.
    match unsafe { libc::syscall(libc::SYS_sigaltstack, new, old) } {
        0 => Ok(()),
        _ => Err(super::errno::get()),
    }
}

fn set_kernels(stack: &stack_t) -> bool {
    // SAFETY: a live structure; the stack is one of ours, or what the kernel said of the program's.
    unsafe { kernel(stack, core::ptr::null_mut()) }.is_ok()
}

fn kernels() -> stack_t {
    let mut current = NOTHING;
    // SAFETY: a query into a live structure.
    let _ = unsafe { kernel(core::ptr::null(), &raw mut current) };
    current
}

/// Gives the calling thread a stack of ours, unless it has one or the kernel refuses, as it does while the thread is
/// on the program's, or a runtime asks the kernel for its stack. Signals are blocked.
pub fn adopt() {
    if thread::signal_stack() != 0 || process::calls_kernel() {
        return;
    }
    let Some((own, new)) = take() else { return };
    let mut before = NOTHING;
    let mine = own.as_kernels();
    // SAFETY: the stack is free, mapped and writable; the other structure is live.
    if unsafe { kernel(&raw const mine, &raw mut before) }.is_err() {
        put_back(own);
        return;
    }
    if before.ss_flags & AUTODISARM != 0 && before.ss_flags & libc::SS_DISABLE == 0 {
        set_kernels(&before);
        before = NOTHING;
    }
    // Most threads have none, and then the head's page need not be touched, nor copied at a fork.
    if !new || before.ss_flags != libc::SS_DISABLE || before.ss_size != 0 || !before.ss_sp.is_null() {
        own.set_programs(&before);
    }
    thread::set_signal_stack(own.top());
}

/// Takes the stack of ours from the calling thread, which ends: the kernel has the program's again.
pub fn leave() {
    let Some(own) = own() else { return };
    let _blocked = BlockedSignals::begin();
    let (programs, mut before) = (own.programs(), NOTHING);
    // SAFETY: live structures; the stack is what the kernel said of the program's.
    let left = unsafe { kernel(&raw const programs, &raw mut before) }.is_ok();
    if left && !own.is(&before) {
        set_kernels(&before);
    }
    thread::set_signal_stack(0);
    // If the kernel refuses, the thread is on it.
    if left {
        put_back(own);
    }
}

/// `sigaltstack` for the program: it is told of its own stack. The kernel judges what is asked for, and its word is
/// what is remembered.
///
/// # Safety
/// `new` and `old` are null or live.
pub unsafe fn exchange(new: *const stack_t, old: *mut stack_t) -> Result<(), c_int> {
    if process::borrows_memory() {
        make_kernels();
        // SAFETY: as the caller says.
        return unsafe { kernel(new, old) };
    }
    let _blocked = BlockedSignals::begin();
    let (_, _, sp) = thread::frame();
    // On ours the kernel refuses either way.
    if process::calls_kernel() && !new.is_null() && own().is_some_and(|own| !own.holds(sp)) {
        leave();
    }
    // SAFETY: as the caller says.
    let Some(own) = own() else { return unsafe { kernel(new, old) } };
    if !own.is(&kernels()) {
        // SAFETY: as the caller says.
        unsafe { kernel(new, old) }?;
    } else {
        let mut before = own.programs();
        if on_programs() {
            if !new.is_null() {
                return Err(libc::EPERM);
            }
            before.ss_flags |= libc::SS_ONSTACK;
        }
        if !new.is_null() {
            // SAFETY: as the caller says.
            unsafe { kernel(new, core::ptr::null_mut()) }?;
        }
        if !old.is_null() {
            // SAFETY: as the caller says.
            unsafe { old.write(before) };
        }
    }
    if !new.is_null() {
        let set = kernels();
        if set.ss_flags & AUTODISARM == 0 && set_kernels(&own.as_kernels()) {
            own.set_programs(&set);
        }
    }
    Ok(())
}

/// In a child that runs in its parent's memory: makes what the program set the kernel's alternate stack, which is the
/// child's own to change.
pub fn make_kernels() {
    if let Some(own) = own()
        && own.is(&kernels())
    {
        set_kernels(&own.programs());
    }
}

/// The alternate stack that the calling thread is on at `sp`: its lowest address, and one past its highest.
pub fn in_use(sp: usize) -> Option<(usize, usize)> {
    if let Some(own) = own() {
        if own.holds(sp) {
            return Some((own.low(), own.top()));
        }
        if let Some(room) = own.room_of_programs().filter(|room| room.holds(sp)) {
            return Some((room.floor, room.top));
        }
    }
    let current = kernels();
    let low = current.ss_sp.expose_provenance();
    (current.ss_flags & libc::SS_ONSTACK != 0).then(|| (low, low.saturating_add(current.ss_size)))
}

/// Whether the calling thread is on the program's alternate stack, which is not what the kernel says.
pub fn on_programs() -> bool {
    let (_, _, sp) = thread::frame();
    own().and_then(Own::room_of_programs).is_some_and(|room| room.holds(sp))
}

/// Where a handler of ours goes on.
#[repr(C)]
pub(super) struct Entry {
    /// Its stack pointer.
    sp: usize,
    /// What [`end_loan`] is to be given.
    loan: usize,
}

/// Where a handler of ours goes on that the kernel began at `sp`: on the thread's stack of ours, on one that is lent
/// to it if it has none, or where it is.
pub(super) extern "C" fn choose(sp: usize) -> Entry {
    let stay = Entry { sp, loan: 0 };
    // A fault while a fault is handled, on whatever stack: what is below is in use.
    if thread::signal_stack() & HANDLING != 0 {
        return stay;
    }
    match own() {
        Some(own) if own.holds(sp) => stay,
        Some(own) => Entry { sp: own.top(), loan: 0 },
        None => take().map_or(stay, |(own, _)| Entry { sp: own.top(), loan: own.top() }),
    }
}

/// The same for a handler that needs little: no stack is lent.
pub(super) extern "C" fn choose_if_own(sp: usize) -> Entry {
    match own() {
        Some(own) if thread::signal_stack() & HANDLING == 0 && !own.holds(sp) => {
            Entry { sp: own.top(), loan: 0 }
        }
        _ => Entry { sp, loan: 0 },
    }
}

/// Takes back what [`choose`] lent. The thread is on another stack.
pub(super) extern "C" fn end_loan(loan: usize) {
    if let Some(own) = head_of((loan >> PAGE_SHIFT) as u64) {
        put_back(own);
    }
}

/// Runs `action`, which needs more stack than a coroutine may have, on the thread's stack of ours: with signals blocked,
/// and as while a fault is handled. Where it is, if the thread has none or is on it.
pub fn with_room<R>(action: impl FnOnce() -> R) -> R {
    struct Task<F, R>(Option<F>, Option<R>);

    extern "C" fn run<F: FnOnce() -> R, R>(task: *mut c_void) {
        // SAFETY: `with_room` passes its task, and waits for the end of this.
        let task = unsafe { &mut *task.cast::<Task<F, R>>() };
        task.1 = task.0.take().map(|action| action());
    }

    fn call<F: FnOnce() -> R, R>(own: Own, task: &mut Task<F, R>) {
        let _blocked = BlockedSignals::begin();
        // Within, as a handler may have come since it was looked at.
        if begin_fault() {
            // SAFETY: the stack is the thread's, which is not on it: nothing there is in use, and no signal begins it
            // anew while the thread says that it handles a fault.
            unsafe { call_on(run::<F, R>, core::ptr::from_mut(task).cast::<c_void>(), own.top()) };
            end_fault();
        }
    }

    let (_, _, sp) = thread::frame();
    let mut task = Task(Some(action), None);
    if let Some(own) = own().filter(|own| !own.holds(sp)) {
        call(own, &mut task);
    }
    match task {
        Task(_, Some(result)) => result,
        Task(Some(action), None) => action(),
        Task(None, None) => super::process::die("a task without a result"),
    }
}

/// Calls `function` with `argument` on the stack whose end is `top`.
///
/// # Safety
/// The stack is writable and free, `top` a multiple of 16, and the function may be called with the argument.
#[unsafe(naked)]
unsafe extern "C" fn call_on(function: extern "C" fn(*mut c_void), argument: *mut c_void, top: usize) {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdx",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// Says that the calling thread handles a fault; `false` if it does already.
pub(super) fn begin_fault() -> bool {
    let word = thread::signal_stack();
    thread::set_signal_stack(word | HANDLING);
    word & HANDLING == 0
}

/// Whether the calling thread handles a fault, and no signal of the program's may find it there.
pub(super) fn handles_fault() -> bool {
    thread::signal_stack() & HANDLING != 0
}

/// Whether a signal that comes now leaves in place what a handler of ours has on its stack: the kernel begins no alternate
/// stack that the handler's frame may lie on.
pub(super) fn keeps_frames() -> bool {
    let kernels = kernels();
    kernels.ss_flags & libc::SS_DISABLE != 0 || own().is_some_and(|own| own.is(&kernels))
}

/// Takes [`begin_fault`] back.
pub(super) fn end_fault() {
    thread::set_signal_stack(thread::signal_stack() & !HANDLING);
}

const _: () =
    assert!(size_of::<Head>() == 64 && BYTES.is_multiple_of(PAGE_SIZE), "a head is the end of a page");

#[cfg(test)]
#[path = "../../tests/unit/stacks.rs"]
mod tests;
