//! What the machine, the cgroup and the process limits grant, and what the processor can do beyond the baseline.

use super::file;
use core::arch::asm;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The kernel's overcommit mode, 0 if it cannot be read.
pub fn overcommit_mode() -> u64 {
    number_in(b"/proc/sys/vm/overcommit_memory\0").unwrap_or(0)
}

/// `vm.max_map_count`, once it was looked at; the kernel's default before.
static MAPPINGS: AtomicU64 = AtomicU64::new(65_530);

/// Reads how many mappings there may be. At start: a program that runs may be killed for it.
pub fn look_at_mappings() {
    if let Some(count) = number_in(b"/proc/sys/vm/max_map_count\0") {
        MAPPINGS.store(count, Ordering::Relaxed);
    }
}

/// How many mappings a process may have.
pub fn max_map_count() -> u64 {
    MAPPINGS.load(Ordering::Relaxed)
}

/// Mappings that are left to the program, its threads and everything else.
const SPARE_MAPPINGS: u64 = 8192;
/// Islands of accessible memory that guards make where they are inaccessible mappings; each costs two mappings.
static ISLANDS: AtomicU64 = AtomicU64::new(0);

/// Counts so many islands more, unless there would be too many mappings. All callers share one limit.
pub fn take_islands(count: u64) -> bool {
    let most = max_map_count().saturating_sub(SPARE_MAPPINGS) / 2;
    let more = |islands: u64| Some(islands + count).filter(|islands| *islands <= most);
    ISLANDS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Counts so many fewer. What was opened before markers lost their effect was not counted.
pub fn release_islands(count: u64) {
    let less = |islands: u64| Some(islands.saturating_sub(count));
    let _ = ISLANDS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

/// What the C library numbers resources with.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// The soft limit of a resource in bytes, `None` if unlimited.
fn soft_limit(resource: Resource) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live; the resource is one of libc's constants.
    let status = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (status == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// The soft limit of the first thread's stack in bytes, `usize::MAX` if there is none.
pub fn stack() -> usize {
    soft_limit(libc::RLIMIT_STACK).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The least of the limits that count address space or writable memory whether or not it is used:
/// `RLIMIT_AS`, and the commit limit in overcommit mode 2. `None` if there is none.
pub fn address_space() -> Option<u64> {
    let commit = (overcommit_mode() == 2).then(|| meminfo(b"CommitLimit:")).flatten();
    [soft_limit(libc::RLIMIT_AS), commit].into_iter().flatten().min()
}

/// The least of the limits that count what is mapped writable: what [`address_space`] said, and `RLIMIT_DATA`.
pub fn writable(address_space: Option<u64>) -> Option<u64> {
    [address_space, soft_limit(libc::RLIMIT_DATA)].into_iter().flatten().min()
}

/// Bytes that count against `RLIMIT_DATA`; `None` if nobody tells.
pub fn data() -> Option<u64> {
    row(b"/proc/self/status\0", b"VmData:")
}

/// Memory in bytes that the cgroup of this process, as far as it is told, and the machine grant, of which the caller
/// knows that it has `machine`.
pub fn memory(machine: Option<u64>) -> Option<u64> {
    let cgroup = number_in(b"/sys/fs/cgroup/memory.max\0");
    [machine, cgroup].into_iter().flatten().min()
}

/// Memory of the machine in bytes. `/proc/meminfo` says the same and takes the kernel many times as long.
pub fn machine_memory() -> Option<u64> {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: the call fills the live structure, of which any bytes are a value.
    let info = unsafe { (libc::sysinfo(info.as_mut_ptr()) == 0).then(|| info.assume_init()) };
    info.and_then(|info| info.totalram.checked_mul(u64::from(info.mem_unit)))
        .or_else(|| meminfo(b"MemTotal:"))
}

/// A row of /proc/meminfo in bytes. Apart, so that the buffer takes no stack where it is not called.
#[cold]
#[inline(never)]
fn meminfo(key: &[u8]) -> Option<u64> {
    row(b"/proc/meminfo\0", key)
}

/// A row of a file that gives kibibytes, in bytes.
fn row(path: &[u8], key: &[u8]) -> Option<u64> {
    let mut buffer = [0; 4096];
    let text = file::read(path, &mut buffer)?;
    let row = text.split(|byte| *byte == b'\n').find_map(|row| row.strip_prefix(key))?;
    leading_number(row)?.checked_mul(1024)
}

fn number_in(path: &[u8]) -> Option<u64> {
    let mut buffer = [0; 64];
    leading_number(file::read(path, &mut buffer)?)
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    core::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

static AVX2: AtomicBool = AtomicBool::new(false);
static DETECTED: AtomicBool = AtomicBool::new(false);

/// Finds out what the processor has, unless that is known; before this the answers are no. A virtual machine may take some
/// microseconds for each question. So whoever needs it asks when it does, and not the start. Threads may ask at once: they get the
/// same answer.
#[inline]
pub fn detect() {
    if !DETECTED.load(Ordering::Relaxed) {
        AVX2.store(find_avx2(), Ordering::Relaxed);
        DETECTED.store(true, Ordering::Relaxed);
    }
}

#[cold]
#[inline(never)]
fn find_avx2() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    // OSXSAVE and AVX: without the operating system's support AVX2 must not be used.
    let usable = __cpuid(1).ecx & (1 << 27 | 1 << 28) == (1 << 27 | 1 << 28);
    // SAFETY: OSXSAVE was just seen, so xgetbv exists.
    let saved = usable && unsafe { xcr0() } & 6 == 6;
    // A processor with XSAVE describes it in leaf 13, so it has leaf 7.
    saved && __cpuid_count(7, 0).ebx & (1 << 5) != 0
}

/// Whether the processor and the operating system have AVX2.
#[inline(always)]
pub fn has_avx2() -> bool {
    AVX2.load(Ordering::Relaxed)
}

/// Has the processor fetch the cache line `offset` bytes behind `base`, which need not be mapped.
#[inline(always)]
pub fn fetch_at(base: usize, offset: usize) {
    // SAFETY: a prefetch changes nothing and cannot fault. Not the intrinsic: it would be moved to where it is late and takes
    // two registers until then.
    unsafe {
        asm!("prefetcht0 byte ptr [{base} + {offset}]", base = in(reg) base, offset = in(reg) offset, options(nomem, nostack, preserves_flags));
    }
}

/// The same, of which the compiler forgets how it came about: it is in one register from here on, or made anew.
#[inline(always)]
pub fn kept(mut value: usize) -> usize {
    // SAFETY: there is no instruction, and the value stays.
    unsafe {
        asm!("/* {0} */", inout(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// `value + MORE`, made anew and not kept from before.
#[inline(always)]
pub fn plus<const MORE: usize>(value: usize) -> usize {
    let sum: usize;
    // SAFETY: an addition, without flags.
    unsafe {
        asm!("lea {sum}, [{value} + {more}]", value = in(reg) value, sum = out(reg) sum, more = const MORE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The lesser of two, without a branch.
#[inline(always)]
pub fn lesser(mut one: usize, other: usize) -> usize {
    // SAFETY: a comparison and a move.
    unsafe {
        asm!("cmp {one}, {other}", "cmova {one}, {other}", one = inout(reg) one, other = in(reg) other, options(pure, nomem, nostack));
    }
    one
}

/// [`kept`] for a pointer.
#[expect(clippy::pointers_in_nomem_asm_block, reason = "there is no instruction")]
#[inline(always)]
pub fn kept_pointer<T>(mut pointer: *const T) -> *const T {
    // SAFETY: as in `kept`.
    unsafe {
        asm!("/* {0} */", inout(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

/// The extended control register 0: which register state the operating system saves.
///
/// # Safety
/// The processor has OSXSAVE.
unsafe fn xcr0() -> u32 {
    let low: u32;
    // SAFETY: the caller saw OSXSAVE.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    low
}
