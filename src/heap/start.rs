//! What is set up once: options, reservations, the fault handler, the hooks.
//!
//! The first allocation of the process starts the heap, whether the dynamic loader, an IFUNC resolver or a constructor
//! makes it. Nothing here allocates, needs a constructor to have run, or needs /proc.

use super::{CALLS, Calls, HEAP, heap, image, lifecycle, sites, thread};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::canary::Content;
use crate::fault::Object;
use crate::options::{
    Align, Guards, Mode, OptionValue, Options, PathBuf, ROWS, Seal, Unmap, Warning, apply, apply_line,
};
use crate::report::fatal;
use crate::report::suppress::{self, Flaw};
use crate::rng::{self, Rng};
use crate::stats::Totals;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sys::action::BlockedSignals;
use crate::sys::errno::ErrnoGuard;
use crate::sys::guard::{self, Backend};
use crate::sys::seal::{self, Unsealed};
use crate::sys::{auxv, file, futex, machine, process, signal, stacks, thread as sys_thread, vm};
use crate::text::{Excerpt, Text};
use crate::trace::{self, Depot};
use crate::{page, slab};
use core::fmt::Write;

const FRESH: u32 = 0;
/// Above every thread's id.
const READY: u32 = 1 << 30;
const SEALED: u32 = READY + 1;
/// Above every thread's id, and below what says that the heap is there.
const ASIDE: u32 = READY - 1;

/// The gate:
///
/// | state | meaning | who changes it |
/// |---|---|---|
/// | `FRESH` | nothing was set up | the first to need the heap, to its thread's id |
/// | a thread's id | that thread starts the heap, and alone writes it; others sleep | the same, when the heap is there |
/// | `READY`, `SEALED` | the heap is there; its tables are sealed | nobody |
/// | `ASIDE` | there will be none: the program is exempt, and the C library's allocator serves it | nobody |
///
/// A child that is forked while another thread starts the heap has no thread that would go on: its hook makes the gate
/// `FRESH` again ([`in_child`]), and what was set up is set up anew and mapped twice. The hooks are there before the first
/// thread ([`super::lifecycle::install`]).
static GATE: AtomicU32 = AtomicU32::new(FRESH);

/// What the program says in code; between the configuration file and the environment.
pub struct Overrides {
    /// Options text from the program's symbol `fencepost_options`.
    pub text: &'static [u8],
    /// Changes the builder makes.
    pub build: Option<Options>,
    /// Asks whether objects of `malloc` may rightly be freed as C++ ones; see
    /// [`super::ops::free`].
    pub mixed_runtimes: Option<fn() -> bool>,
    /// Whether the front end can leave a program that is exempt to another allocator.
    pub may_stand_aside: bool,
}

impl Overrides {
    /// None.
    pub const NONE: Self = Self { text: &[], build: None, mixed_runtimes: None, may_stand_aside: false };
}

/// Sets everything up unless it is; other threads wait meanwhile. `errno` stays as it was.
#[inline]
pub fn ensure_started(overrides: &Overrides) {
    if !is_started() {
        start_slow(overrides);
    }
}

/// Whether the heap is set up.
#[inline]
pub fn is_started() -> bool {
    GATE.load(Ordering::Acquire) >= READY
}

/// Whether the heap is set up and nothing of it is sealed.
#[inline]
pub fn is_open() -> bool {
    GATE.load(Ordering::Acquire) == READY
}

pub use sys_thread::{is_own_process, own_process};

/// The options in force.
pub fn options() -> &'static Options {
    &heap().options
}

#[cold]
fn start_slow(overrides: &Overrides) {
    // Files that are not there and limits that are none set it, and a program may look before it calls anything.
    let _errno = ErrnoGuard::new();
    match GATE.compare_exchange(FRESH, sys_thread::own_id(), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // A signal handler that allocates would wait for the end of this.
            let blocked = BlockedSignals::begin();
            let state = match start(overrides) {
                Started::Aside => ASIDE,
                Started::Heap if seal::is_in_use() => SEALED,
                Started::Heap => READY,
            };
            GATE.store(state, Ordering::Release);
            futex::wake_all(&GATE);
            drop(blocked);
            if state == ASIDE {
                return;
            }
            // From here on allocations work, and the C library's functions may make some.
            sys_thread::on_exit_init(thread::on_exit);
            lifecycle::install();
        }
        Err(mut state) => {
            while state < ASIDE {
                futex::wait(&GATE, state);
                state = GATE.load(Ordering::Acquire);
            }
        }
    }
}

/// In a forked child, once its thread knows its new id: whether the heap was there. If another thread was starting it, the
/// next to need it starts it anew; a handler that interrupted the start and forked leaves it to go on.
pub fn in_child() -> bool {
    match GATE.load(Ordering::Acquire) {
        FRESH | ASIDE => false,
        READY | SEALED => {
            // The thread that started the heap may not have come to it.
            sys_thread::on_exit_init(thread::on_exit);
            true
        }
        starter if starter == sys_thread::id_before_fork() => {
            GATE.store(sys_thread::own_id(), Ordering::Release);
            own_process();
            false
        }
        _ => {
            if !guard::begin_anew() {
                process::die("no memory in a child that was forked while the heap started");
            }
            GATE.store(FRESH, Ordering::Release);
            false
        }
    }
}

/// What a start comes to.
enum Started {
    Heap,
    Aside,
}

fn start(overrides: &Overrides) -> Started {
    if !vm::page_size_matches() {
        process::die("the kernel's page size is not the one this was built for");
    }
    // SAFETY: the gate makes this the one writer, and nobody reads before it opens.
    let heap = unsafe { &mut *HEAP.0.get() };
    own_process();
    file::look_at_stderr();
    let secure = auxv::secure();
    let options = gather(overrides, secure).normalised(PAGE_SIZE);
    if overrides.may_stand_aside && is_exempt(&options, secure) {
        heap.options = options;
        process::stand_aside();
        signal::uninstall();
        super::expect_libc_objects();
        return Started::Aside;
    }
    let seed = match options.seed {
        0 => {
            let key = auxv::key();
            // The generators take keys of their own; this number only names the run.
            u64::from_le_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], 0]).max(1)
        }
        seed => seed,
    };
    heap.options = options;
    heap.secure = secure;
    heap.seed = seed;
    if options.seal == Seal::Pkey && !seal::take() {
        file::write_stderr(b"fencepost: no protection keys here: seal=pkey changes nothing\n");
    }
    let _unsealed = Unsealed::begin();
    if options.names {
        vm::name_mappings();
    }
    rng::set_seed(seed_for_generators(&options, seed));
    let mut rng = Rng::new();
    let kernel = guard::examine(options.guards != Guards::Mprotect);
    let backend = Backend::choose(options.guards, kernel);
    if options.guards == Guards::Madvise && backend != Backend::Madvise {
        file::write_stderr(
            b"fencepost: guards=madvise has no effect here: guard pages are mappings instead\n",
        );
    }
    let limit = address_space(kernel);
    if limit.is_some() {
        super::limit::set_limited();
    }
    let memory = machine::machine_memory();
    let limited = machine::writable(limit).is_some();
    if limited {
        vm::forbid_moves();
    }
    let pages = page_config(&options, backend, limit, memory);
    if !limited {
        vm::lay_ground(pages.reserve.saturating_add(slab::wanted(memory)).saturating_add(GROUND_BYTES));
        vm::make_room(ROOM_BYTES);
        thread::make_generators(false);
    }
    // Written here alone. In one piece they cost two calls.
    let constants = constants().filter(|pages| vm::commit(*pages));
    let protection =
        slab::Protection { canary: options.canary, zero: options.zero, mismatch: options.mismatch };
    let quarantine = quarantine_bytes(&options);
    let front = limit.is_none_or(|limit| limit >= FRONT_LIMIT);
    if !slab::init(
        slab::Config { backend, limit, memory, front, protection, opened: constants.is_some() },
        quarantine,
        &mut rng,
    ) {
        do_without("slabs");
    }
    if !heap.page.init(pages, &mut rng) {
        do_without("guarded objects");
    }
    let keeps_rules = options.backtrace != 0 || options.looks_at_all();
    // SAFETY: this is the start, and the gate still keeps out every thread that might capture a stack.
    unsafe { trace::init(keeps_rules, limited) };
    if options.backtrace != 0
        && let Some(depot) = Depot::map(limited)
    {
        heap.depot = depot;
    }
    stacks::init(limited, backend == Backend::Madvise);
    vm::end_ground();
    if limited {
        thread::make_generators(true);
    }
    thread::init(limited);
    image::drop_anchor(heap);
    read_suppressions(&options);
    sites::init(&options);
    install_reports(overrides, constants);
    vm::stop_naming();
    Started::Heap
}

/// Whether a pattern of the option `exempt` fits the program's file: one with a slash its path, others its name. The
/// kernel's word alone counts where the caller may have chosen the other (a setuid program by way of a link).
#[inline(never)]
fn is_exempt(options: &Options, secure: bool) -> bool {
    let patterns = options.exempt.as_bytes();
    if patterns.is_empty() {
        return false;
    }
    let mut buffer = [0; 512];
    let path = match file::own_path(&mut buffer) {
        Some(path) => path,
        None if secure => return false,
        None => auxv::program().unwrap_or_default(),
    };
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let fits = |pattern: &[u8]| suppress::glob(pattern, if pattern.contains(&b'/') { path } else { name });
    patterns.split(|byte| *byte == b'|').any(|pattern| !pattern.is_empty() && fits(pattern))
}

/// Room for the tables of every process, the states of the first threads among them.
const ROOM_BYTES: usize = thread::AHEAD_BYTES + (5 << 20);

/// Address space for all that the start reserves beside the slabs and the arena: the tables of the arena, of records, of
/// stack traces, the stacks of handlers.
const GROUND_BYTES: usize = 16 << 30;

/// A process that may map fewer bytes than this has no front: it is a small part of more.
const FRONT_LIMIT: u64 = 1 << 30;

/// What an emulator may be asked to reserve: it keeps books of every page.
const EMULATED: u64 = 4 << 30;

/// Bytes that the process may map in all, if that is limited.
fn address_space(kernel: guard::Kernel) -> Option<u64> {
    let emulated = kernel.pretends.then_some(EMULATED);
    [machine::address_space(), emulated].into_iter().flatten().min()
}

/// Says that an allocator could not be set up. What the other and the C library serve, the program gets.
fn do_without(what: &str) {
    let mut line = Text::<128>::new();
    let _ = writeln!(line, "fencepost: there is no address space for {what}: less protection");
    file::write_stderr(line.as_bytes());
}

/// A drawn seed drives the generators only when a run is to be repeated: it has 56 bits, a key 256.
/// In `hunt` repeating a run is worth more than unpredictable addresses.
fn seed_for_generators(options: &Options, seed: u64) -> u64 {
    match options.mode {
        Mode::Hunt => seed,
        Mode::Harden | Mode::Patrol => options.seed,
    }
}

/// Bytes of freed slots that are withheld.
pub fn quarantine_bytes(options: &Options) -> usize {
    usize::try_from(options.quarantine_mb.bytes()).unwrap_or(usize::MAX)
}

/// Address space that the page allocator gets for a mode, with so much memory in the machine: at least so much, and at
/// least so many times the memory. A freed address comes back when a shard of it was used once.
fn reserve(mode: Mode, memory: Option<u64>) -> u64 {
    const TIB: u64 = 1 << 40;
    let (least, times) = match mode {
        Mode::Hunt => (8 * TIB, 256),
        Mode::Harden | Mode::Patrol => (2 * TIB, 64),
    };
    memory.unwrap_or(0).saturating_mul(times).max(least)
}

fn page_config(options: &Options, backend: Backend, limit: Option<u64>, memory: Option<u64>) -> page::Config {
    let budget = match options.budget_mb {
        0 => machine::memory(memory).unwrap_or(1 << 32) / 2,
        megabytes => megabytes.saturating_mul(1 << 20),
    };
    page::Config {
        backend,
        limit,
        reserve: usize::try_from(match options.reserve_gb {
            0 => reserve(options.mode, memory),
            gigabytes => gigabytes.saturating_mul(1 << 30),
        })
        .unwrap_or(usize::MAX),
        exact: options.align == Align::Exact,
        canary: options.canary,
        // In production only the bytes an off-by-some is likely to hit.
        reach: if options.mode == Mode::Hunt { PAGE_SIZE } else { 256 },
        budget: PageCount::holding(usize::try_from(budget).unwrap_or(usize::MAX)),
        history: options.history,
        batch: match options.unmap {
            Unmap::Now => 1,
            Unmap::Batch(count) => usize::from(count),
        },
        close_poisoned: options.mode == Mode::Hunt,
    }
}

const _: () = assert!(page::BATCH_MAX == Unmap::MOST as usize, "the option offers what the allocator has");

/// The pages of what is constant from the start on, where they lie side by side.
fn constants() -> Option<Span> {
    let (calls, layout) = (CALLS.pages(), slab::constants());
    let [first, last] = if calls.start < layout.start { [calls, layout] } else { [layout, calls] };
    (first.end() == last.start)
        .then(|| Span::new(first.start, PageCount::new(first.pages.get() + last.pages.get())))
}

/// Puts the reports' context in its place and takes the fault signals. `opened` is where the constants are that were opened.
fn install_reports(overrides: &Overrides, opened: Option<Span>) {
    let heap = heap();
    let report = fatal::Context {
        options: &heap.options,
        seed: heap.seed,
        depot: &heap.depot,
        totals,
        content,
        collector: collector(heap.secure),
        secure: heap.secure,
    };
    let pages = opened.or_else(|| Some(CALLS.pages()).filter(|pages| vm::commit(*pages)));
    if let Some(pages) = pages {
        // SAFETY: the gate makes this the one thread that starts the heap, and the pages were opened.
        unsafe { CALLS.fill_open(Calls { mixed_runtimes: overrides.mixed_runtimes, report }) };
        vm::seal(pages);
    }
    super::install();
}

/// The socket that the launcher names for reports. It is no option: it belongs to one run, and has no
/// place in what a report says to run again with.
fn collector(secure: bool) -> PathBuf {
    let name = if secure { None } else { auxv::variable(b"FENCEPOST_COLLECTOR") };
    name.and_then(PathBuf::parse).unwrap_or(PathBuf::EMPTY)
}

/// What an allocator put at `address`, near `object`.
fn content(address: Addr, object: Option<&Object>) -> Content {
    if slab::contains(address) {
        return slab::content(address, object);
    }
    heap().page.canary_at(address).map_or(Content::Program, Content::Canary)
}

/// What was allocated how, in all threads.
pub fn totals() -> Totals {
    thread::totals()
}

/// The configuration file.
const CONFIGURATION: &str = "/etc/fencepost.conf";
/// The same with its final zero.
const CONFIGURATION_PATH: &[u8] = b"/etc/fencepost.conf\0";
/// Bytes of it that are read.
pub const CONFIGURATION_BYTES: usize = 1 << 20;
/// Bytes of a line of it, with its end.
pub const LINE_BYTES: usize = 4096;

/// Defaults, configuration file, program, environment: later ones win.
fn gather(overrides: &Overrides, secure: bool) -> Options {
    let mut options = Options::DEFAULT;
    read_configuration(&mut options);
    if let Some(build) = overrides.build {
        for row in ROWS {
            row.copy_if_given(&build, &mut options);
        }
    }
    let mut said = Complaints::about("fencepost_options");
    apply(&mut options, overrides.text, |warning| said.warn(warning));
    if secure {
        options.log_path = PathBuf::EMPTY;
        options.suppressions = PathBuf::EMPTY;
        options.site_table = PathBuf::EMPTY;
    } else if let Some(text) = auxv::variable(b"FENCEPOST_OPTIONS") {
        let mut said = Complaints::about("FENCEPOST_OPTIONS");
        apply(&mut options, text, |warning| said.warn(warning));
    }
    if options.help {
        print_help(&options);
    }
    options
}

/// Applies the configuration file, if there is one that can be opened.
#[inline(never)]
fn read_configuration(options: &mut Options) {
    let mut said = Complaints::about(CONFIGURATION);
    let result =
        file::read_lines::<LINE_BYTES>(CONFIGURATION_PATH, CONFIGURATION_BYTES, |piece| match piece {
            file::Piece::Line(line) => apply_line(options, line, |warning| said.warn(warning)),
            file::Piece::LongLine(start) => said.say("a line is too long, ignored: ", start),
            file::Piece::Rest => said.say("longer than 1 MiB, the rest is ignored", b""),
        });
    match result {
        Ok(()) | Err(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EPERM) => {}
        Err(libc::EINVAL) => said.say("no file to be read, ignored", b""),
        // What was understood before stays.
        Err(_) => said.say("cannot be read, or not to its end", b""),
    }
}

/// What is wrong with one source of options, a line each, and of very many the first.
struct Complaints {
    source: &'static str,
    lines: u32,
}

impl Complaints {
    const MOST: u32 = 32;

    fn about(source: &'static str) -> Self {
        Self { source, lines: 0 }
    }

    fn warn(&mut self, warning: Warning<'_>) {
        match warning {
            Warning::UnknownKey(key) => self.say("unknown option ", key),
            Warning::BadValue(key, value) => self.write(|line| {
                let (key, value) = (excerpt(key), excerpt(value));
                let _ = write!(line, "bad value for {key}, default kept: {value}");
            }),
            Warning::NoValue(item) => self.say("no value: ", item),
        }
    }

    fn say(&mut self, what: &str, about: &[u8]) {
        self.write(|line| {
            let _ = write!(line, "{what}{}", excerpt(about));
        });
    }

    #[cold]
    fn write(&mut self, what: impl FnOnce(&mut Text<384>)) {
        if self.lines > Self::MOST {
            return;
        }
        let mut line = Text::new();
        let _ = write!(line, "fencepost: {}: ", self.source);
        match self.lines {
            Self::MOST => line.push_bytes(b"and more of the kind"),
            _ => what(&mut line),
        }
        line.end_line();
        self.lines = self.lines.saturating_add(1);
        file::write_stderr(line.as_bytes());
    }
}

/// What somebody wrote, as part of a line.
fn excerpt(bytes: &[u8]) -> Excerpt<'_> {
    Excerpt { bytes, most: 100 }
}

fn read_suppressions(options: &Options) {
    let path = options.suppressions.as_bytes();
    if path.is_empty() {
        return;
    }
    let mut name = Text::<256>::new();
    name.push_bytes(path);
    name.push_bytes(&[0]);
    let mut said = Complaints::about("suppressions");
    let Some(mut rules) = suppress::RULES.enter() else { return };
    rules.load(name.as_bytes(), |flaw| match flaw {
        Flaw::Unreadable => said.say("cannot read ", path),
        Flaw::TooLong => said.say("the end is ignored, too long: ", path),
        Flaw::NoRule(rule) => said.say("not kind:pattern with a known kind, ignored: ", rule),
    });
}

#[cold]
#[inline(never)]
fn print_help(options: &Options) {
    for row in ROWS {
        let mut line = Text::<1536>::new();
        let _ = write!(line, "{}=", row.name);
        (row.spell)(options, &mut |bytes| {
            let _ = write!(line, "{}", Excerpt { bytes, most: 1024 });
        });
        let _ = write!(line, "\n    {} ({})", row.help, row.range);
        line.end_line();
        file::write_stderr(line.as_bytes());
    }
}
