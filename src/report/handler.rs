//! The handler of SIGSEGV and SIGBUS. It recognises faults in the heap's memory, reports them, and passes all others to
//! the program.
//!
//! A fault inside a live object is the program's own. The program closed pages of memory that it allocated, as a write
//! barrier or a guard of its own; the heap closes pages of a live object only for poison. There is one exception: the
//! kernel's advice may have lost its effect, so that the heap opened a page in vain. Then the page is replaced, and
//! nothing is reported.
//!
//! After a report the handler returns to the instruction. With `on_error=continue`, or where a suppression covers the
//! error, the page was opened and the access succeeds, unless one instruction went over a thousand pages that are no
//! object's ([`runs_away`]): it would go on for as long as there is address space. Otherwise the process ends by the signal before the instruction
//! runs again ([`signal::end_at_return`]), and the core dump shows the faulting frame.

use super::fatal::{self, Context, Outcome};
use super::finding::{Access, Finding, Wild, is_inside_live};
use super::{access, render, turn};
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::Object;
use crate::options::OnError;
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::{self, Unsealed};
use crate::sys::signal::{self, Next, Receiver};
use crate::sys::{deliver, file, process, thread, vm};
use crate::text::Text;
use crate::trace::{self, Frames, Stack};
use core::fmt::Write;
use core::marker::PhantomData;
use core::ops::Range;
use libc::{c_int, c_void, siginfo_t};

/// What the heap knows of a faulting address.
pub enum Whose {
    /// It lies in no arena.
    Foreign,
    /// It lies in an arena, near this object if there is one.
    Ours(Option<Object>),
}

/// What the handler asks of the heap.
pub trait Heap {
    /// For the reports; `None` until the heap is set up, when every fault is foreign.
    fn context() -> Option<&'static Context>;
    /// Whose an address is.
    fn whose(address: Addr) -> Whose;
    /// Whether an access without a mapping must not fault and may be made again: the page was to be open, and now it is.
    fn mend(address: Addr) -> bool;
    /// Opens the page of an address, for `on_error=continue`; `false` if it cannot.
    fn open(address: Addr) -> bool;
    /// If its page was closed since the program poisoned all of it: the poisoned bytes around an address.
    fn poisoned(address: Addr) -> Option<Range<usize>>;
    /// The calling thread's stack.
    fn stack() -> Stack;
}

/// The process in which a thread was reported and ends the process; 0 for none. A child that shares the memory ends
/// alone.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// The last fault that was allowed, as one number, and how often it came again.
static ALLOWED: AtomicUsize = AtomicUsize::new(0);
static AGAIN: AtomicU32 = AtomicU32::new(0);
/// So often the same access to an opened page may fault: another thread may have closed it.
const MOST_AGAIN: u32 = 64;

/// An instruction's way over the heap in one thread.
struct Walk {
    /// The instruction and the thread, as one number.
    who: AtomicUsize,
    /// The page of its last fault that was allowed.
    page: AtomicUsize,
    /// How many came as this one did before it.
    steps: AtomicU32,
}

/// By the number of the instruction and the thread. Those that have the same place begin anew by turns.
static WALKS: [Walk; 64] =
    [const { Walk { who: AtomicUsize::new(0), page: AtomicUsize::new(0), steps: AtomicU32::new(0) } }; 64];
/// Pages that one instruction may go over outside of objects: 4 MiB.
const MOST_STEPS: u32 = 1_000;
/// From this distance on, an access has nothing to do with the nearest object.
const AWAY: usize = 1 << 20;

/// From the stack pointer down to here a fault without a mapping is taken for a stack overflow, and a
/// little way up, where a large frame is written from its other end.
const BELOW_STACK: usize = 1 << 20;
const ABOVE_STACK: usize = 1 << 16;

/// Takes the fault signals for the heap `H`. The Rust runtime takes them before `main` if they are free, and it
/// allocates between looking and taking: this is to be called when the program is loaded, and not with the first
/// allocation.
pub fn install<H: Heap>() {
    signal::install::<Faults<H>>();
}

struct Faults<H>(PhantomData<H>);

impl<H: Heap> Receiver for Faults<H> {
    unsafe fn on_fault(number: c_int, info: *mut siginfo_t, context: *mut c_void, nested: bool) -> Next {
        let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
        // SAFETY: the kernel passed it, as the caller says.
        if unsafe { deliver::is_sent(info) } {
            // SAFETY: `info` and `context` are the kernel's, and the handler returns with what `forward`
            // says.
            return unsafe { deliver::forward(number, info, context) };
        }
        // SAFETY: `context` is the kernel's for this handler, and lives until it returns.
        if turn::is_here() && turn::is_of_fault() && unsafe { deliver::begins_own_stack(context) } {
            turn::abandon();
        }
        if turn::is_here() {
            // SAFETY: `context` is the kernel's for this handler, which still runs.
            unsafe { signal::with_interrupted_mask(context, || fatal::end_failed_report(number)) };
            return Next::RETURN;
        }
        if nested {
            // Nothing is known of the state that this thread left behind, and the fault would come again.
            file::write_stderr(b"fencepost: a fault while handling a fault\n");
            signal::restore_default(number);
            return Next::RETURN;
        }
        // SAFETY: as the caller says.
        unsafe { on_first_fault::<H>(number, info, context) }
    }
}

/// # Safety
/// As [`Receiver::on_fault`].
unsafe fn on_first_fault<H: Heap>(number: c_int, info: *mut siginfo_t, context: *mut c_void) -> Next {
    let reports = H::context();
    // SAFETY: the kernel passed both.
    let (address, registers) = unsafe { (signal::fault_address(info), signal::context(context)) };
    // SAFETY: `info` is the kernel's for this signal.
    let key = unsafe { signal::denying_key(number, info) };
    let sealed = key.is_some_and(seal::is_own);
    // SAFETY: `info` is the kernel's for this signal.
    let unmapped = reports.is_some() && unsafe { signal::is_unmapped(number, info) };
    if unmapped && address.is_some_and(H::mend) {
        return Next::RETURN;
    }
    let mut inside = None;
    let ours = reports.zip(address).and_then(|(reports, address)| match H::whose(address) {
        _ if sealed => Some((reports, address, None)),
        // The program sealed its own memory.
        _ if key.is_some() => None,
        Whose::Ours(Some(object)) if is_inside_live(address, &object) && H::poisoned(address).is_none() => {
            inside = Some(object);
            None
        }
        Whose::Ours(object) => Some((reports, address, object)),
        Whose::Foreign => None,
    });
    let Some((reports, address, object)) = ours else {
        if reports.is_some() && signal::ends_process(number) {
            // SAFETY: `info` is the kernel's for this signal.
            let general_protection = unsafe { signal::is_general_protection(info) };
            if general_protection && let Some(reports) = reports {
                // SAFETY: `context` is the kernel's for this handler, which still runs.
                unsafe { report_wild::<H>(reports, &registers, context) };
            }
            if !general_protection
                && !render::tells_of_own_faults()
                && let (Some(reports), Some(address), None) = (reports, address, inside)
                && !is_near_stack(address, &registers)
            {
                // SAFETY: `context` is the kernel's for this handler, which still runs.
                unsafe { report_foreign::<H>(reports, address, &registers, context) };
            }
            let note = || {
                match inside.zip(address) {
                    Some((object, address)) => note_inside(&object, address, &registers),
                    None => note_foreign(general_protection, address, &registers),
                }
                if let Some(reports) = reports.filter(|_| render::tells_of_own_faults()) {
                    note_own(reports, number, address, &registers, H::stack());
                }
            };
            // SAFETY: `context` is the kernel's for this handler, which still runs.
            unsafe { signal::with_interrupted_mask(context, note) };
        }
        // SAFETY: `info` and `context` are the kernel's, and the handler returns with what `forward` says.
        return unsafe { deliver::forward(number, info, context) };
    };
    let process = thread::pid();
    if ENDING.load(Ordering::Acquire) != process {
        // SAFETY: `context` is the kernel's for this handler, which still runs.
        let goes_on = unsafe { report::<H>(reports, address, object, sealed, &registers, context) };
        if goes_on
            && !ends_walk(address, object, &registers, context)
            && allow::<H>(address, sealed, &registers)
        {
            return Next::RETURN;
        }
        ENDING.store(process, Ordering::Release);
        // SAFETY: `context` is the kernel's for this handler, which still runs.
        unsafe { wait_before_dying(reports, context) };
    } else {
        // Another thread ends the process, now or when a debugger had its time.
        let wait = || thread::sleep_seconds(reports.options.sleep_before_dying);
        // SAFETY: `context` is the kernel's for this handler, which still runs.
        unsafe { signal::with_interrupted_mask(context, wait) };
    }
    // SAFETY: `info` is the kernel's for this signal, whose handler returns next.
    unsafe { signal::end_at_return(number, info) };
    Next::RETURN
}

/// Waits for a debugger, if that is wanted. Signals may end the process meanwhile.
///
/// # Safety
/// `context` is what the kernel passed to the handler.
unsafe fn wait_before_dying(reports: &Context, context: *const c_void) {
    if reports.options.sleep_before_dying != 0 {
        // SAFETY: as the caller says.
        unsafe { signal::with_interrupted_mask(context, || fatal::before_dying(reports)) };
    }
}

/// Reports a fault of the heap's; whether the program goes on.
///
/// # Safety
/// `context` is what the kernel passed to the handler.
unsafe fn report<H: Heap>(
    reports: &Context,
    address: Addr,
    object: Option<Object>,
    sealed: bool,
    registers: &signal::Context,
    context: *const c_void,
) -> bool {
    let kind = match registers.write {
        Some(true) => Access::Write,
        Some(false) => Access::Read,
        None => Access::Unknown,
    };
    let frames = trace::capture_fault(registers, trace::MAX_FRAMES, H::stack());
    let mut finding = Finding::of_access(address, kind, object, frames, (registers.fp(), registers.sp()));
    finding.sealed = sealed;
    finding.fault = Some(*registers);
    finding.extent = access::at(registers, address).map(|extent| (extent.start, extent.size));
    if let Some(poisoned) = H::poisoned(address) {
        finding = finding.to_poisoned(&poisoned);
    }
    // It waits for other reports, and for its reader: the program's signals come meanwhile.
    // SAFETY: as the caller says.
    let outcome = unsafe { signal::with_interrupted_mask(context, || fatal::report(reports, &finding)) };
    match (outcome, reports.options.on_error) {
        (Outcome::Known | Outcome::Suppressed, _) | (Outcome::Written, OnError::Continue) => true,
        (Outcome::Written, OnError::Exit) => {
            // SAFETY: as the caller says.
            unsafe { wait_before_dying(reports, context) };
            process::exit_now(fatal::exit_status(reports))
        }
        (Outcome::Written, OnError::Abort) | (Outcome::Nested, _) => false,
    }
}

/// Reports a pointer outside the address space, by which the program is about to end.
///
/// # Safety
/// `context` is what the kernel passed to the handler.
unsafe fn report_wild<H: Heap>(reports: &Context, registers: &signal::Context, context: *const c_void) {
    let Some(extent) = access::without_address(registers).filter(access::Extent::is_wild) else { return };
    let kind = if extent.written { Access::Write } else { Access::Read };
    let frames = trace::capture_fault(registers, trace::MAX_FRAMES, H::stack());
    let fill = reports.options.fill.byte();
    let (wild, pointer) = Wild::of(&registers.registers, extent.start.get(), fill);
    let address = Addr::new(pointer);
    let mut finding = Finding::of_access(address, kind, None, frames, (registers.fp(), registers.sp()));
    finding.extent = Some((address, extent.size));
    finding.wild = Some(wild);
    // SAFETY: as the caller says.
    unsafe { report_last(reports, &finding, context) };
}

/// Reports a fault outside the heap, by which the program is about to end.
///
/// # Safety
/// `context` is what the kernel passed to the handler.
unsafe fn report_foreign<H: Heap>(
    reports: &Context,
    address: Addr,
    registers: &signal::Context,
    context: *const c_void,
) {
    let kind = match registers.write {
        Some(true) => Access::Write,
        Some(false) => Access::Read,
        None => Access::Unknown,
    };
    let frames = trace::capture_fault(registers, trace::MAX_FRAMES, H::stack());
    let mut finding = Finding::of_access(address, kind, None, frames, (registers.fp(), registers.sp()));
    finding.extent = access::at(registers, address).map(|extent| (extent.start, extent.size));
    finding.fault = Some(*registers);
    // SAFETY: as the caller says.
    unsafe { report_last(reports, &finding, context) };
}

/// Reports what the program is about to end by; does not come back with `on_error=exit`.
///
/// # Safety
/// `context` is what the kernel passed to the handler.
unsafe fn report_last(reports: &Context, finding: &Finding, context: *const c_void) {
    // SAFETY: as the caller says.
    let outcome = unsafe { signal::with_interrupted_mask(context, || fatal::report(reports, finding)) };
    if outcome == Outcome::Written {
        if reports.options.on_error == OnError::Exit {
            // SAFETY: as the caller says.
            unsafe { wait_before_dying(reports, context) };
            process::exit_now(fatal::exit_status(reports));
        }
        // SAFETY: as the caller says.
        unsafe { wait_before_dying(reports, context) };
    }
}

/// Whether an access that was to be allowed ends the program, as it goes on without end; says so.
fn ends_walk(
    address: Addr,
    object: Option<Object>,
    registers: &signal::Context,
    context: *const c_void,
) -> bool {
    let away = object.map(|object| {
        let end = object.start.plus(object.size.unwrap_or(0));
        object.start.get().saturating_sub(address.get()).max((address.get() + 1).saturating_sub(end.get()))
    });
    let who = registers.pc ^ (thread::own_id() as usize) << 48;
    let ends = runs_away(who, address.page_floor().get() / PAGE_SIZE, away);
    if ends {
        let why = b"it went over 1000 pages that are no object's, which was allowed; the program ends";
        let note = || fatal::note("an access without end", registers.pc, why);
        // SAFETY: `context` is the kernel's for this handler, which still runs.
        unsafe { signal::with_interrupted_mask(context, note) };
    }
    ends
}

/// Whether an instruction that faulted in a page, so many bytes from the nearest object (`None` without one), has gone from
/// page to page for too long. Inside of an object it comes to the end by itself. A loop over objects with the same error in
/// each touches pages that are not next to each other and near their objects.
fn runs_away(who: usize, page: usize, away: Option<usize>) -> bool {
    let place = who.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    let Some(walk) = WALKS.get(place) else { return false };
    let same = walk.who.swap(who, Ordering::Relaxed) == who;
    let step = walk.page.swap(page, Ordering::Relaxed).abs_diff(page);
    if away == Some(0) {
        return false;
    }
    if !same || step > 1 && away.is_some_and(|away| away < AWAY) {
        walk.steps.store(0, Ordering::Relaxed);
        return false;
    }
    walk.steps.fetch_add(1, Ordering::Relaxed) >= MOST_STEPS
}

/// Opens the page of an access. `false` where that does not let it through: code is never executed there, what
/// is sealed stays so, and an access that comes again and again faults for another reason.
fn allow<H: Heap>(address: Addr, sealed: bool, registers: &signal::Context) -> bool {
    let access = registers.pc.rotate_left(32) ^ address.get();
    let again = match ALLOWED.swap(access, Ordering::Relaxed) == access {
        true => AGAIN.fetch_add(1, Ordering::Relaxed),
        false => {
            AGAIN.store(0, Ordering::Relaxed);
            0
        }
    };
    let opened = !registers.fetch && !sealed && again < MOST_AGAIN && H::open(address);
    if !opened {
        file::write_stderr(b"fencepost: the access cannot be allowed\n");
    }
    opened
}

/// A line on the end of a program that closed pages of its own object and handles no fault.
fn note_inside(object: &Object, address: Addr, registers: &signal::Context) {
    let mut why = Text::<200>::new();
    let into = address.offset_from(object.start).unwrap_or(0);
    let (size, start) = (object.size.unwrap_or(0), object.start.get());
    let _ = write!(
        why,
        "0x{:012x} is {into} bytes inside the live {size}-byte object at 0x{start:012x}, whose page the program closed",
        address.get()
    );
    fatal::note("fault", registers.pc, why.as_bytes());
}

/// The stack of a fault that is the program's own and ends it, after an allocation was refused.
fn note_own(
    reports: &Context,
    number: c_int,
    address: Option<Addr>,
    registers: &signal::Context,
    stack: Stack,
) {
    let fault = trace::capture_fault(registers, trace::MAX_FRAMES, stack);
    let mut frames = Frames::EMPTY;
    for (index, pc) in fault.as_slice().iter().enumerate() {
        // The instruction itself counts as one that was returned to.
        frames.push(pc.saturating_add(usize::from(index == 0)));
    }
    let name = if number == libc::SIGBUS { "SIGBUS" } else { "SIGSEGV" };
    match address {
        Some(address) => {
            render::note(
                reports,
                format_args!("the program ends by {name} on address 0x{:012x} here:", address.get()),
                &frames,
            );
        }
        None => render::note(reports, format_args!("the program ends by {name} here:"), &frames),
    }
}

/// A line on the end of a program that the heap has no part in, where there is one to say.
fn note_foreign(general_protection: bool, address: Option<Addr>, registers: &signal::Context) {
    if general_protection {
        fatal::note_general_protection(registers);
        return;
    }
    if address.is_some_and(|address| is_near_stack(address, registers)) {
        fatal::note_stack_overflow(registers.pc);
    }
}

/// Whether a fault looks like one of a thread that has used up its stack.
fn is_near_stack(address: Addr, registers: &signal::Context) -> bool {
    let (low, high) =
        (registers.sp().saturating_sub(BELOW_STACK), registers.sp().saturating_add(ABOVE_STACK));
    (low..high).contains(&address.get()) && address.get() >= PAGE_SIZE && vm::peek(address, &mut [0]) == 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_walk_ends_outside_of_objects_alone() {
        let walk = |pc, step: usize, away| (1..=5_000).position(|number| runs_away(pc, number * step, away));
        assert_eq!(walk(1, 1, Some(0)), None, "an object of 20 MB that was freed");
        assert_eq!(walk(2, 2, Some(8)), None, "8 bytes past each of 5,000 objects");
        assert_eq!(walk(3, 1, Some(8)), Some(MOST_STEPS as usize + 1));
        assert_eq!(walk(4, 7, Some(AWAY)), Some(MOST_STEPS as usize + 1));
        assert_eq!(walk(5, 1, None), Some(MOST_STEPS as usize + 1));
        let two = (1..5_000).position(|number| runs_away(6 + number % 2, number / 2, Some(8)));
        assert!(two.is_some_and(|at| at > 2 * MOST_STEPS as usize), "two at once");
    }
}
