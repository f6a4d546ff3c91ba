//! The one list of options.

use super::value::{
    Align, Count, Fill, Foreign, GuardSide, Guards, Intercept, Mebibytes, Mode, OnError, OptionValue,
    PathBuf, ReportForm, Seal, Shown, Sites, Switch, Unmap,
};
use core::fmt;

/// One option as the help text and the documents show it.
pub struct Row {
    /// The key in `FENCEPOST_OPTIONS`.
    pub name: &'static str,
    /// The values it takes.
    pub range: &'static str,
    /// What it does, one sentence.
    pub help: &'static str,
    /// Writes the value that `options` holds, for a person.
    pub show: fn(&Options, &mut dyn fmt::Write) -> fmt::Result,
    /// Hands over the bytes of the value that `options` holds, as [`super::apply`] would read them without quotes.
    pub spell: Spell,
    /// Reads a value into `options`; `false` if the text spells none.
    pub(super) set: fn(&mut Options, &[u8]) -> bool,
    /// Whether a source of options set it, be it to the default.
    pub is_given: fn(&Options) -> bool,
    copy: fn(&Options, &mut Options),
}

impl Row {
    /// Takes the option's value from `from` into `to` if it was set there, be it to the default.
    pub fn copy_if_given(&self, from: &Options, to: &mut Options) {
        if (self.is_given)(from) {
            (self.copy)(from, to);
        }
    }
}

/// Hands over the bytes of an option's value, in pieces.
pub type Spell = fn(&Options, &mut dyn FnMut(&[u8]));

/// Which options were set: a bit for each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given(u64);

impl Given {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(u64::MAX);

    /// These and `key`.
    #[must_use]
    pub const fn with(self, key: Key) -> Self {
        Self(self.0 | 1 << key as u32)
    }

    /// Whether `key` is among them.
    pub const fn has(self, key: Key) -> bool {
        self.0 & 1 << key as u32 != 0
    }
}

macro_rules! table {
    ($($name:ident: $type:ty = $default:expr, $range:literal, $help:literal;)+) => {
        /// Everything that can be set.
        #[derive(Clone, Copy)]
        pub struct Options {
            $(#[doc = $help] pub $name: $type,)+
            /// Which of them were set.
            pub given: Given,
        }

        impl Options {
            /// The defaults, none of them set.
            pub const DEFAULT: Self = Self { $($name: $default,)+ given: Given::NONE };
        }

        /// The rows by name.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Key { $(#[doc = $help] $name,)+ }

        /// Every option, in the order of the documents.
        pub const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            range: $range,
            help: $help,
            show: |options, out| options.$name.write(out),
            spell: |options, out| options.$name.spell(out),
            set: |options, text| match <$type as OptionValue>::parse(text) {
                Some(value) => {
                    options.$name = value;
                    options.given = options.given.with(Key::$name);
                    true
                }
                None => false,
            },
            is_given: |options| options.given.has(Key::$name),
            copy: |from, to| {
                to.$name = from.$name;
                to.given = to.given.with(Key::$name);
            },
        },)+];
    };
}

table! {
    mode: Mode = Mode::Harden, "harden, patrol, hunt",
        "Which objects stand between guard pages: large ones, a sample as well, or all.";
    unmap_threshold: u64 = 0, "bytes; 0 = one page",
        "Objects of this size or more go to the page allocator and are unmapped at free (harden, patrol).";
    align: Align = Align::Abi, "abi, exact",
        "Keep the C ABI's 16 bytes in the page allocator, or end every object exactly at its guard.";
    guard_side: GuardSide = GuardSide::Right, "right, left, random",
        "Which end of an object touches its guard page.";
    seed: u64 = 0, "number; 0 = from the kernel",
        "Seed of every random choice, to repeat a run.";
    unmap: Unmap = Unmap::Now, "now, batch:2 to batch:64",
        "Take a freed object's pages away before its free returns, or those of N freed objects together.";
    guards: Guards = Guards::Auto, "auto, madvise, mprotect",
        "The kernel facility that makes guard pages.";
    budget_mb: u64 = 0, "MiB; 0 = half of what the machine or the cgroup grants",
        "Live memory the page allocator may hold for small objects; beyond it they go to the slab allocator.";
    quarantine_mb: Mebibytes = Mebibytes::kib(256), "MiB, also 0.5 and the like, at most 4096; 0 = off",
        "Freed slab memory that is withheld from reuse, all threads together: a slot comes back after so much was freed.";
    canary: bool = true, "0, 1",
        "Fill the slack around objects and check it at free and at exit.";
    zero: bool = true, "0, 1",
        "Clear slab memory at free and check at reuse and at exit that nobody wrote it since.";
    seal: Seal = Seal::None, "none, pkey",
        "Make the allocator's tables writable only within the allocator, by a memory protection key (x86 PKU).";
    backtrace: u64 = 16, "frames, at most 32; 0 = off",
        "Frames kept for each allocation and free of a guarded object.";
    report: ReportForm = ReportForm::Text, "text, json",
        "Form of the report.";
    dump: Switch = Switch::Auto, "0, 1; auto = 1 in hunt",
        "Show the bytes of memory in reports, canaries excepted, and not only what lies where.";
    log_path: PathBuf = PathBuf::EMPTY, "path; %p = process id",
        "Append reports to this file instead of stderr; ignored when AT_SECURE is set.";
    on_error: OnError = OnError::Abort, "abort, exit, continue",
        "What follows a report: the signal, the exit status, or that the program goes on with the access allowed.";
    exitcode: u64 = 99, "0 to 255",
        "Exit status with on_error=exit, and with on_error=continue when errors were found (there 0 = the program's own).";
    suppressions: PathBuf = PathBuf::EMPTY, "path",
        "File of errors not to report, a line each: kind:pattern; ignored when AT_SECURE is set.";
    sleep_before_dying: u64 = 0, "seconds",
        "Wait so long after a report that ends the program, for a debugger to be attached.";
    leaks: u64 = 0, "0, 1, 2",
        "List at exit what is still allocated and whether anything points at it; 2: exit with exitcode when nothing does.";
    stats: bool = false, "0, 1",
        "Print counts at exit.";
    sample_rate: u64 = 1000, "n; 0 = off",
        "patrol guards one in about n small objects.";
    mismatch: bool = true, "0, 1",
        "Report objects freed by another family than allocated them.";
    check_at_exit: bool = true, "0, 1",
        "Check the canaries of all live slab objects and that freed slab memory is untouched at exit.";
    intercept: Intercept = Intercept::Auto, "off, copy, syscalls, all; auto = all in hunt, syscalls in patrol, off in harden",
        "Compare what functions of the C library access with the bounds of heap objects: memcpy and its like, system calls and streams, or all and strings too.";
    frames: Shown = Shown::Program, "program, all",
        "Leave out of stacks what called main or a thread's first function: start code of the C library and of Rust's.";
    foreign: Foreign = Foreign::Abort, "abort, ignore, libc",
        "What to do with a freed pointer that fencepost did not hand out.";
    exempt: PathBuf = PathBuf::EMPTY, "names or paths with * for anything, separated by |",
        "Programs that libfencepost.so leaves to the C library's allocator, by the name or path of their file.";
    names: bool = true, "0, 1",
        "Name the allocator's tables and slabs for /proc/PID/maps, where the kernel can.";
    history: u64 = 65536, "records",
        "Freed guarded objects that are remembered for reports.";
    reserve_gb: u64 = 0, "GiB; 0 = 64 times the memory, 2048 at least, in hunt four times as much; up to 32768",
        "Address space the page allocator reserves.";
    fill: Fill = Fill::OFF, "0x01 to 0xff; 0 = off",
        "Fill what malloc hands out with this byte, and what realloc adds: who reads what it never wrote shows it.";
    fill_site: Sites = Sites::ALL, "all, a hash, low-high",
        "Fill only what was allocated from stacks with these hashes; of a single one, say where that is.";
    fail_after: Count = Count::OFF, "off, n",
        "Let the first n allocations of the process succeed and the next one fail, as if there were no memory.";
    fail_every: u64 = 0, "n; 0 = off",
        "Let each n-th allocation fail; with fail_after, from that one on.";
    fail_site: Sites = Sites::ALL, "all, a hash, low-high",
        "Count and fail only allocations from stacks with these hashes; alone: all of these fail.";
    site_table: PathBuf = PathBuf::EMPTY, "path",
        "Count allocations by stack in this table, which the launcher makes; ignored when AT_SECURE is set.";
    help: bool = false, "0, 1",
        "Print every option with its value to stderr at start.";
}

const _: () = assert!(ROWS.len() <= u64::BITS as usize, "each row has its bit");
