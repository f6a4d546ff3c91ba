//! The handler of SIGSEGV and SIGBUS: recognises faults in the arenas, reports them, and hands all
//! others to the program.
//!
//! After a report the instruction is returned to. With `on_error=continue`, or where a suppression covers
//! the error, the page was opened and the access goes through; else the signal has its default disposition,
//! and the core dump shows the faulting frame.

use super::access;
use super::fatal::{self, Context, Outcome};
use super::finding::{Access, Finding};
use super::turn;
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::Object;
use crate::options::OnError;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::sys::errno::ErrnoGuard;
use crate::sys::pkey::{self, Unsealed};
use crate::sys::signal::{self, Next};
use crate::sys::{deliver, die, file, thread, vm};
use crate::trace::{self, Stack};
use libc::{c_int, c_void, siginfo_t};

/// What the heap knows of a faulting address.
pub enum Whose {
    /// It lies in no arena.
    Foreign,
    /// It lies in an arena, near this object if there is one.
    Ours(Option<Object>),
}

/// What the handler asks of the heap.
pub struct Heap {
    /// Whose an address is.
    pub whose: fn(Addr) -> Whose,
    /// Opens the page of an address, for `on_error=continue`; `false` if it cannot.
    pub open: fn(Addr) -> bool,
    /// The calling thread's stack.
    pub stack: fn() -> Stack,
    /// For the reports.
    pub context: &'static Context,
}

static HEAP: AtomicPtr<Heap> = AtomicPtr::new(core::ptr::null_mut());
/// The address whose fault is being let through to end the process.
static FINAL: AtomicUsize = AtomicUsize::new(0);

/// The last fault that was let through, as one number, and how often it came again.
static LET_THROUGH: AtomicUsize = AtomicUsize::new(0);
static AGAIN: AtomicU32 = AtomicU32::new(0);
/// So often the same access to an opened page may fault: another thread may have closed it.
const MOST_AGAIN: u32 = 64;

/// From the stack pointer down to here a fault without a mapping is taken for a stack overflow, and a
/// little way up, where a large frame is written from its other end.
const BELOW_STACK: usize = 1 << 20;
const ABOVE_STACK: usize = 1 << 16;

/// Takes the fault signals when the program is loaded; until [`install`] says for which heap, every
/// fault is foreign. The Rust runtime takes the signals before `main` if they are free, and it
/// allocates between looking and taking: the first allocation would be too late.
extern "C" fn on_load() {
    signal::install(on_fault);
}

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

/// Installs the handler for `heap`.
pub fn install(heap: &'static Heap) {
    HEAP.store(core::ptr::from_ref(heap).cast_mut(), Ordering::Release);
    signal::install(on_fault);
}

fn on_fault(number: c_int, info: *mut siginfo_t, context: *mut c_void) -> Next {
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    // SAFETY: null or the static that `install` stored.
    let heap = unsafe { HEAP.load(Ordering::Acquire).as_ref() };
    if turn::is_here() {
        fatal::end_failed_report(number);
        return Next::RETURN;
    }
    // SAFETY: the kernel passed both.
    let (address, registers) = unsafe { (signal::fault_address(info), signal::context(context)) };
    // SAFETY: as above.
    let key = unsafe { signal::denying_key(number, info) };
    let sealed = key.is_some_and(pkey::is_own);
    let ours = heap.zip(address).and_then(|(heap, address)| match (heap.whose)(address) {
        _ if sealed => Some((heap, address, None)),
        // The program sealed its own memory.
        _ if key.is_some() => None,
        Whose::Ours(object) => Some((heap, address, object)),
        Whose::Foreign => None,
    });
    let Some((heap, address, object)) = ours else {
        if heap.is_some() && signal::ends_process(number) {
            // SAFETY: as above.
            note_foreign(unsafe { signal::is_general_protection(info) }, address, &registers);
        }
        // SAFETY: as above.
        return unsafe { deliver::hand_on(number, info, context) };
    };
    if FINAL.load(Ordering::Acquire) == 0 {
        let goes_on = report(heap, address, object, sealed, &registers);
        if goes_on && let_through(heap, address, sealed, &registers) {
            return Next::RETURN;
        }
        FINAL.store(address.get().max(1), Ordering::Release);
        fatal::before_dying(heap.context);
    } else {
        // Another thread ends the process, now or when a debugger had its time.
        thread::sleep_seconds(heap.context.options.sleep_before_dying);
    }
    signal::restore_default(number);
    Next::RETURN
}

/// Reports a fault of the heap's; whether the program goes on.
fn report(
    heap: &Heap,
    address: Addr,
    object: Option<Object>,
    sealed: bool,
    registers: &signal::Context,
) -> bool {
    let kind = match registers.write {
        Some(true) => Access::Write,
        Some(false) => Access::Read,
        None => Access::Unknown,
    };
    let frames = trace::capture_fault(registers, trace::MAX_FRAMES, (heap.stack)());
    let mut finding = Finding::of_access(address, kind, object, frames, (registers.fp(), registers.sp()));
    finding.sealed = sealed;
    finding.extent = access::at(registers, address).map(|extent| (extent.start, extent.size));
    match (fatal::report(heap.context, &finding), heap.context.options.on_error) {
        (Outcome::Known | Outcome::Suppressed, _) | (Outcome::Written, OnError::Continue) => true,
        (Outcome::Written, OnError::Exit) => {
            fatal::before_dying(heap.context);
            die::exit_now(fatal::exit_status(heap.context))
        }
        (Outcome::Written, OnError::Abort) | (Outcome::Nested, _) => false,
    }
}

/// Opens the page of an access. `false` where that does not let it through: code is never executed there, what
/// is sealed stays so, and an access that comes again and again faults for another reason.
fn let_through(heap: &Heap, address: Addr, sealed: bool, registers: &signal::Context) -> bool {
    let access = registers.pc.rotate_left(32) ^ address.get();
    let again = match LET_THROUGH.swap(access, Ordering::Relaxed) == access {
        true => AGAIN.fetch_add(1, Ordering::Relaxed),
        false => {
            AGAIN.store(0, Ordering::Relaxed);
            0
        }
    };
    let through = !registers.fetch && !sealed && again < MOST_AGAIN && (heap.open)(address);
    if !through {
        file::write_stderr(b"fencepost: the access cannot be let through\n");
    }
    through
}

/// A line on the end of a program that the heap has no part in, where there is one to say.
fn note_foreign(general_protection: bool, address: Option<Addr>, registers: &signal::Context) {
    if general_protection {
        fatal::note_general_protection(registers);
        return;
    }
    let near = |address: &Addr| {
        let (low, high) =
            (registers.sp().saturating_sub(BELOW_STACK), registers.sp().saturating_add(ABOVE_STACK));
        (low..high).contains(&address.get()) && address.get() >= PAGE_SIZE
    };
    if address.as_ref().is_some_and(near) && address.is_some_and(|address| vm::peek(address, &mut [0]) == 0) {
        fatal::note_stack_overflow(registers.pc);
    }
}
