//! The handler of SIGSEGV and SIGBUS: recognises faults in the arenas, reports them, and hands all
//! others to whoever had the signal before.

use super::access;
use super::fatal::{self, Context};
use super::finding::{Access, Finding};
use crate::addr::Addr;
use crate::fault::Object;
use crate::options::OnError;
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::sys::errno::ErrnoGuard;
use crate::sys::{die, file, signal};
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

extern "C" fn on_fault(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let _errno = ErrnoGuard::new();
    // SAFETY: null or the static that `install` stored.
    let heap = unsafe { HEAP.load(Ordering::Acquire).as_ref() };
    if fatal::reporting_here() {
        file::write_stderr(b"fencepost: a fault while reporting an error\n");
        signal::restore_default(number);
        return;
    }
    // SAFETY: the kernel passed both.
    let address = unsafe { signal::fault_address(info) };
    let (Some(heap), Some(address)) = (heap, address) else {
        // SAFETY: as above.
        if unsafe { signal::is_general_protection(info) } && signal::ends_process(number) {
            // SAFETY: as above.
            fatal::note_general_protection(&unsafe { signal::context(context) });
        }
        // SAFETY: as above.
        unsafe { signal::chain(number, info, context) };
        return;
    };
    let object = match (heap.whose)(address) {
        Whose::Foreign => {
            // SAFETY: as above.
            unsafe { signal::chain(number, info, context) };
            return;
        }
        Whose::Ours(object) => object,
    };
    // SAFETY: as above.
    let registers = unsafe { signal::context(context) };
    if FINAL.load(Ordering::Acquire) == 0 || heap.context.options.on_error == OnError::Continue {
        let access = match registers.write {
            Some(true) => Access::Write,
            Some(false) => Access::Read,
            None => Access::Unknown,
        };
        let frames = trace::capture_fault(&registers, trace::MAX_FRAMES, (heap.stack)());
        let mut finding =
            Finding::of_access(address, access, object, frames, (registers.fp(), registers.sp()));
        finding.extent = access::at(&registers, address).map(|extent| (extent.start, extent.size));
        fatal::write(heap.context, &finding);
    }
    match heap.context.options.on_error {
        OnError::Exit => die::exit_now(i32::try_from(heap.context.options.exitcode).unwrap_or(1)),
        OnError::Continue if (heap.open)(address) => {}
        OnError::Continue | OnError::Abort => {
            // Returning faults again, now with the default disposition: the core dump shows the
            // faulting frame.
            FINAL.store(address.get().max(1), Ordering::Release);
            signal::restore_default(number);
        }
    }
}
