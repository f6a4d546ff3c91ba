//! The table: which program must be reported how, in which suite.

use crate::support::expectation::{Expectation, Found};
use crate::support::report::Access::{self, Read, Write};
use crate::support::report::{Relation, Side};

/// One run of a program with a bug.
pub struct Row {
    pub program: &'static str,
    /// Separated by blanks.
    pub arguments: &'static str,
    pub expected: Expectation,
}

const fn row(program: &'static str, arguments: &'static str, expected: Expectation) -> Row {
    Row { program, arguments, expected }
}

/// Objects of this size or more are the page allocator's in every mode.
const PAGE: u64 = 4096;

impl Expectation {
    /// The same bug in `harden`, where the stacks of small objects are not kept.
    pub fn in_harden(mut self) -> Self {
        if self.relation.is_some_and(|relation| relation.object_size < PAGE) {
            self.alloc_stack = false;
            self.free_stack = false;
        }
        self
    }

    const fn by_child(mut self) -> Self {
        self.in_child = true;
        self
    }
}

const fn expect(kind: &'static str, found: Found, relation: Option<(u64, Side, u64)>) -> Expectation {
    let relation = match relation {
        Some((distance, side, object_size)) => Some(Relation { distance, side, object_size }),
        None => None,
    };
    Expectation {
        kind,
        found,
        relation,
        access: None,
        alloc_stack: relation.is_some(),
        free_stack: false,
        in_child: false,
    }
}

const fn access(
    kind: &'static str,
    access: Access,
    distance: u64,
    side: Side,
    size: u64,
    freed: bool,
) -> Expectation {
    let mut expected = expect(kind, Found::AtAccess, Some((distance, side, size)));
    expected.access = Some(access);
    expected.free_stack = freed;
    expected
}

pub const fn overflow(how: Access, distance: u64, size: u64) -> Expectation {
    access("heap-buffer-overflow", how, distance, Side::After, size, false)
}

const fn underflow(how: Access, distance: u64, size: u64) -> Expectation {
    access("heap-buffer-underflow", how, distance, Side::Before, size, false)
}

pub const fn use_after_free(how: Access, distance: u64, size: u64) -> Expectation {
    access("heap-use-after-free", how, distance, Side::Inside, size, true)
}

const fn canary_after(distance: u64, size: u64) -> Expectation {
    expect("canary-overwritten", Found::ByCheck, Some((distance, Side::After, size)))
}

const fn canary_before(distance: u64, size: u64) -> Expectation {
    expect("canary-overwritten", Found::ByCheck, Some((distance, Side::Before, size)))
}

const fn write_after_free(distance: u64, size: u64) -> Expectation {
    expect("write-after-free", Found::ByCheck, Some((distance, Side::Inside, size)))
}

const fn double_free(size: u64) -> Expectation {
    let mut expected = expect("double-free", Found::ByCheck, Some((0, Side::Inside, size)));
    expected.free_stack = true;
    expected
}

/// A pointer to no object.
const INVALID: Expectation = expect("invalid-free", Found::ByCheck, None);

const fn interior(distance: u64, size: u64) -> Expectation {
    expect("invalid-free", Found::ByCheck, Some((distance, Side::Inside, size)))
}

const fn mismatch(size: u64) -> Expectation {
    expect("alloc-dealloc-mismatch", Found::ByCheck, Some((0, Side::Inside, size)))
}

const fn bad_size(size: u64) -> Expectation {
    expect("bad-size", Found::ByCheck, Some((0, Side::Inside, size)))
}

const fn bad_alignment(size: u64) -> Expectation {
    expect("bad-alignment", Found::ByCheck, Some((0, Side::Inside, size)))
}

/// A question about a pointer into an object.
const fn into(distance: u64, size: u64) -> Expectation {
    expect("wild-access", Found::ByCheck, Some((distance, Side::Inside, size)))
}

/// A question about a freed object.
const fn gone(size: u64) -> Expectation {
    let mut expected = expect("heap-use-after-free", Found::ByCheck, Some((0, Side::Inside, size)));
    expected.free_stack = true;
    expected
}

/// A free or an access of a freed object of no bytes, of which every byte is behind it.
const fn freed_nothing(kind: &'static str, found: Found) -> Expectation {
    let mut expected = expect(kind, found, Some((0, Side::After, 0)));
    expected.free_stack = true;
    expected
}

const fn read_freed_nothing() -> Expectation {
    let mut expected = freed_nothing("heap-use-after-free", Found::AtAccess);
    expected.access = Some(Read);
    expected
}

/// An access that a function of the C library was about to make.
const fn of_call(how: Access, size: u64) -> Expectation {
    let mut expected = overflow(how, 0, size);
    expected.found = Found::ByCheck;
    expected
}

/// Found by the functions that look at bounds, whatever stands around the object.
pub const CALLS: &[Row] = &[
    row("overflow_memset", "4096 16", of_call(Write, 4096)),
    row("overflow_memset", "48 16", of_call(Write, 48)),
    row("overflow_memset", "100 1", of_call(Write, 100)),
    row("overflow_strcpy", "4096", of_call(Write, 4096)),
    row("overflow_strcpy", "13", of_call(Write, 13)),
    row("overread_memcpy", "32", of_call(Read, 32)),
    row("overread_memcpy", "100", of_call(Read, 100)),
];

/// Found in every mode, on either side.
pub const ALWAYS: &[Row] = &[
    row("zero_touch", "malloc read after 0", overflow(Read, 0, 0)),
    row("zero_touch", "malloc write after 0", overflow(Write, 0, 0)),
    row("zero_touch", "malloc read after 15", overflow(Read, 15, 0)),
    row("zero_touch", "malloc write after 15", overflow(Write, 15, 0)),
    row("zero_touch", "malloc write before 1", underflow(Write, 1, 0)),
    row("zero_touch", "calloc write after 0", overflow(Write, 0, 0)),
    row("zero_touch", "realloc read after 15", overflow(Read, 15, 0)),
    row("zero_touch", "reallocarray write after 15", overflow(Write, 15, 0)),
    row("zero_touch", "memalign read after 0", overflow(Read, 0, 0)),
    row("zero_touch", "memalign_large write after 0", overflow(Write, 0, 0)),
    row("zero_touch", "posix_memalign write after 15", overflow(Write, 15, 0)),
    row("zero_touch", "valloc write after 100", overflow(Write, 100, 0)),
    row("zero_touch", "new read after 0", overflow(Read, 0, 0)),
    row("zero_touch", "new_array write after 0", overflow(Write, 0, 0)),
    row("zero_freed", "again", freed_nothing("double-free", Found::ByCheck)),
    row("zero_freed", "read", read_freed_nothing()),
    row("question", "freed 100", gone(100)),
    row("question", "freed 5000", gone(5000)),
    row("question", "freed 300000", gone(300_000)),
    row("question", "late 24", gone(24)),
    row("question", "late 5000", gone(5000)),
    row("question", "interior 100", into(16, 100)),
    row("question", "interior 5000", into(16, 5000)),
    row("question", "interior 300000", into(16, 300_000)),
    row("question", "stack 1", expect("wild-access", Found::ByCheck, None)),
    row("question", "wild 1", expect("wild-access", Found::ByCheck, None)),
    row("aligned_delete_other", "8192 0 4096", bad_alignment(8192)),
    row("aligned_delete_other", "8192 4096 64", bad_alignment(8192)),
    row("aligned_delete_other", "100 4096 64 sized", bad_alignment(100)),
    row("aligned_delete_other", "8192 64 4096 sized", bad_alignment(8192)),
    row("aligned_delete_other", "300000 32 16", bad_alignment(300_000)),
    row("aligned_delete_other", "40 0 64", bad_alignment(40)),
    row("mismatch_new_realloc_in_place", "100 104", mismatch(100)),
    row("mismatch_new_realloc_in_place", "5000 5001", mismatch(5000)),
    row("mismatch_new_realloc_in_place", "300000 300001", mismatch(300_000)),
    row("double_free", "13", double_free(13)),
    row("double_free", "100", double_free(100)),
    row("double_free", "4096", double_free(4096)),
    row("double_free", "300000", double_free(300_000)),
    row("double_free_late", "24 2000", double_free(24)),
    row("double_free_late", "5000 500", double_free(5000)),
    row("double_free_thread", "40", double_free(40)),
    row("double_free_thread", "5000", double_free(5000)),
    row("double_delete", "", double_free(8)),
    row("realloc_freed", "56", double_free(56)),
    row("realloc_freed", "5000", double_free(5000)),
    row("realloc_to_zero", "56 plain", double_free(56)),
    row("realloc_to_zero", "5000 plain", double_free(5000)),
    row("realloc_to_zero", "300000 plain", double_free(300_000)),
    row("realloc_to_zero", "40 array", double_free(40)),
    row("free_stack", "", INVALID),
    row("free_global", "", INVALID),
    row("free_literal", "", INVALID),
    row("free_mmap", "", INVALID),
    row("free_wild", "0x1234567", INVALID),
    row("free_wild", "0x10", INVALID),
    row("free_wild", "0xdeadbeefdeadbee0", INVALID),
    row("free_interior", "64 16", interior(16, 64)),
    row("free_interior", "100 1", interior(1, 100)),
    row("free_interior", "4096 16", interior(16, 4096)),
    row("free_interior", "5000 4990", interior(4990, 5000)),
    row("free_interior", "300000 4096", interior(4096, 300_000)),
    row("realloc_interior", "64 16", interior(16, 64)),
    row("realloc_interior", "5000 8", interior(8, 5000)),
    row("mismatch_malloc_delete", "", mismatch(40)),
    row("mismatch_new_free", "", mismatch(40)),
    row("mismatch_new_delete_array", "", mismatch(8)),
    row("mismatch_array_delete", "", mismatch(40)),
    row("mismatch_new_realloc", "", mismatch(40)),
    row("sized_delete", "", bad_size(40)),
    row("aligned_delete", "", expect("bad-alignment", Found::ByCheck, Some((0, Side::Inside, 40)))),
    row("sized_delete_class", "", bad_size(40)),
];

/// Found in every mode with the guard on the right: objects whose pages have no slack, and freed ones.
pub const PAGE_ALLOCATOR: &[Row] = &[
    row("overflow_grown", "0 after 0 8192 16384", overflow(Write, 0, 16384)),
    row("overflow_grown", "0 after 0 4096 16384 200704", overflow(Write, 0, 200_704)),
    row("overflow_grown", "0 after 0 65536 8192", overflow(Write, 0, 8192)),
    row("overflow_grown", "0 after 0 1048576 2097152", overflow(Write, 0, 2_097_152)),
    row("overflow_grown", "0 after 0 1048576 8388608", overflow(Write, 0, 8_388_608)),
    row("overflow_write", "4096", overflow(Write, 0, 4096)),
    row("overflow_read", "4096", overflow(Read, 0, 4096)),
    row("overflow_run", "8192 5000", overflow(Write, 0, 8192)),
    row("overflow_memset", "4096 16", overflow(Write, 0, 4096)),
    row("overflow_strcpy", "4096", overflow(Write, 0, 4096)),
    row("overflow_loop", "2048", overflow(Write, 0, 8192)),
    row("overflow_aligned", "4096 8192", overflow(Write, 0, 8192)),
    row("overflow_neighbours", "4096 8", overflow(Write, 0, 4096)),
    row("overflow_thread", "4096", overflow(Write, 0, 4096)),
    row("overflow_fork", "4096", overflow(Write, 0, 4096).by_child()),
    row("overread_strlen", "4096", overflow(Read, 0, 4096)),
    row("overread_memcpy", "4096", overflow(Read, 0, 4096)),
    row("overflow_new", "4096", overflow(Write, 0, 8192)),
    row("overflow_vector", "1024", overflow(Write, 0, 4096)),
    row("underflow_write", "4096 1", underflow(Write, 1, 4096)),
    row("underflow_write", "8192 8", underflow(Write, 8, 8192)),
    row("underflow_read", "4096 1", underflow(Read, 1, 4096)),
    row("underflow_write", "5000 1", canary_before(1, 5000)),
    row("underflow_write", "5000 8", canary_before(8, 5000)),
    row("underflow_exit", "5000 1", canary_before(1, 5000)),
    row("uaf_read", "4096 0", use_after_free(Read, 0, 4096)),
    row("uaf_read", "5000 4999", use_after_free(Read, 4999, 5000)),
    row("uaf_write", "5000 8", use_after_free(Write, 8, 5000)),
    row("uaf_write", "1000000 500000", use_after_free(Write, 500_000, 1_000_000)),
    row("uaf_late", "5000", use_after_free(Read, 0, 5000)),
    row("uaf_thread", "5000", use_after_free(Read, 0, 5000)),
    row("uaf_blocked", "5000", use_after_free(Read, 0, 5000)),
    row("waf_reuse", "5000 8", use_after_free(Write, 8, 5000)),
    row("waf_exit", "5000 8", use_after_free(Write, 8, 5000)),
    row("realloc_stale", "5000", use_after_free(Write, 0, 5000)),
    row("overflow_small_stack", "alternate 2048", overflow(Write, 0, 4096)),
    row("overflow_small_stack", "alternate 4096", overflow(Write, 0, 4096)),
    row("overflow_small_stack", "alternate 8192", overflow(Write, 0, 4096)),
    row("overflow_small_stack", "alternate 16384", overflow(Write, 0, 4096)),
    row("overflow_small_stack", "coroutine 2048", overflow(Write, 0, 4096)),
    row("overflow_small_stack", "thread 16384", overflow(Write, 0, 4096)),
];

/// Found in `hunt` whatever the alignment: frees, and small objects that fill multiples of 16 bytes.
pub const HUNT: &[Row] = &[
    row("overflow_grown", "0 after 0 300000 300016", overflow(Write, 0, 300_016)),
    row("overflow_grown", "0 after 0 300000 304096", overflow(Write, 0, 304_096)),
    row("overflow_grown", "0 after 0 300000 1000000 3000000 9000000", overflow(Write, 0, 9_000_000)),
    row("overflow_grown", "0 after 0 3000000 1000000 300000", overflow(Write, 0, 300_000)),
    row("overflow_grown", "0 after 0 100 5008 300000 400", overflow(Write, 0, 400)),
    row("overflow_grown", "4096 after 0 300000 300032", overflow(Write, 0, 300_032)),
    row("overflow_grown", "8192 after 0 300000 400000", overflow(Write, 0, 400_000)),
    row("overflow_grown", "64 after 0 300032 300000", overflow(Write, 0, 300_000)),
    row("overflow_write", "16", overflow(Write, 0, 16)),
    row("overflow_read", "16", overflow(Read, 0, 16)),
    row("overflow_run", "64 5000", overflow(Write, 0, 64)),
    row("overflow_memset", "48 16", overflow(Write, 0, 48)),
    row("overflow_loop", "4", overflow(Write, 0, 16)),
    row("overflow_aligned", "64 128", overflow(Write, 0, 128)),
    row("overflow_aligned", "64 100", canary_after(0, 100)),
    row("overflow_neighbours", "64 8", overflow(Write, 0, 64)),
    row("overflow_exit", "32", overflow(Write, 0, 32)),
    row("overflow_thread", "32", overflow(Write, 0, 32)),
    row("overflow_fork", "32", overflow(Write, 0, 32).by_child()),
    row("overread_strlen", "16", overflow(Read, 0, 16)),
    row("overread_memcpy", "32", overflow(Read, 0, 32)),
    row("overflow_new", "8", overflow(Write, 0, 16)),
    row("overflow_vector", "12", overflow(Write, 0, 48)),
    row("underflow_write", "16 1", canary_before(1, 16)),
    row("underflow_write", "16 8", canary_before(8, 16)),
    row("underflow_write", "13 1", canary_before(1, 13)),
    row("underflow_write", "100 8", canary_before(8, 100)),
    row("underflow_exit", "48 1", canary_before(1, 48)),
    row("uaf_read", "16 0", use_after_free(Read, 0, 16)),
    row("uaf_read", "13 12", use_after_free(Read, 12, 13)),
    row("uaf_write", "100 8", use_after_free(Write, 8, 100)),
    row("uaf_late", "24", use_after_free(Read, 0, 24)),
    row("uaf_thread", "24", use_after_free(Read, 0, 24)),
    row("uaf_list", "", use_after_free(Read, 0, 16)),
    row("uaf_vector", "", use_after_free(Read, 0, 40)),
    row("waf_reuse", "56 8", use_after_free(Write, 8, 56)),
    row("waf_exit", "56 0", use_after_free(Write, 0, 56)),
    row("realloc_stale", "100", use_after_free(Write, 0, 100)),
];

/// Found in `hunt` with `align=exact`: any size, at the access.
pub const EXACT: &[Row] = &[
    row("overflow_grown", "0 after 0 300000 300001", overflow(Write, 0, 300_001)),
    row("overflow_grown", "0 after 0 300000 300001 700003", overflow(Write, 0, 700_003)),
    row("overflow_write", "13", overflow(Write, 0, 13)),
    row("overflow_write", "100", overflow(Write, 0, 100)),
    row("overflow_write", "5000", overflow(Write, 0, 5000)),
    row("overflow_read", "13", overflow(Read, 0, 13)),
    row("overflow_read", "100", overflow(Read, 0, 100)),
    row("overflow_read", "5000", overflow(Read, 0, 5000)),
    row("overflow_run", "13 300", overflow(Write, 0, 13)),
    row("overflow_memset", "100 16", overflow(Write, 0, 100)),
    row("overflow_strcpy", "13", overflow(Write, 0, 13)),
    row("overflow_strcpy", "100", overflow(Write, 0, 100)),
    row("overflow_strdup", "", overflow(Write, 0, 13)),
    row("overflow_loop", "25", overflow(Write, 0, 100)),
    row("overflow_realloc", "13", overflow(Write, 0, 13)),
    row("overflow_neighbours", "24 1", overflow(Write, 0, 24)),
    row("overflow_exit", "13", overflow(Write, 0, 13)),
    row("overread_strlen", "13", overflow(Read, 0, 13)),
    row("overread_memcpy", "100", overflow(Read, 0, 100)),
    row("overflow_new", "7", overflow(Write, 0, 14)),
    row("overflow_vector", "10", overflow(Write, 0, 40)),
];

/// Found with `align=abi`: what lands in the slack is found at free or exit, what goes beyond at the access.
pub const ABI: &[Row] = &[
    row("overflow_grown", "0 after 0 300000 300001", canary_after(0, 300_001)),
    row("overflow_grown", "0 after 15 300000 300001", overflow(Write, 15, 300_001)),
    row("overflow_grown", "0 after 2015 300000 300001", overflow(Write, 2015, 300_001)),
    row("overflow_write", "13", canary_after(0, 13)),
    row("overflow_write", "100", canary_after(0, 100)),
    row("overflow_write", "5000", canary_after(0, 5000)),
    row("overflow_run", "13 3", canary_after(0, 13)),
    row("overflow_run", "13 300", overflow(Write, 3, 13)),
    row("overread_strlen", "13", overflow(Read, 3, 13)),
    row("nul_write", "13 0", canary_after(0, 13)),
    row("nul_write", "13 1", canary_after(1, 13)),
    row("nul_write", "13 7 before", canary_before(7, 13)),
    row("overflow_run", "5000 300", overflow(Write, 8, 5000)),
    row("overflow_memset", "100 12", canary_after(0, 100)),
    row("overflow_strcpy", "13", canary_after(0, 13)),
    row("overflow_strcpy", "100", canary_after(0, 100)),
    row("overflow_strdup", "", canary_after(0, 13)),
    row("overflow_loop", "25", canary_after(0, 100)),
    row("overflow_realloc", "13", canary_after(0, 13)),
    row("overflow_neighbours", "24 1", canary_after(0, 24)),
    row("overflow_exit", "13", canary_after(0, 13)),
    row("overflow_new", "7", canary_after(0, 14)),
    row("overflow_vector", "10", canary_after(0, 40)),
];

/// Found with the guard on the left: what is before the object at the access, what is behind it at free.
pub const LEFT: &[Row] = &[
    row("overflow_grown", "0 before 1 300000 300001", underflow(Write, 1, 300_001)),
    row("overflow_grown", "0 before 1 300000 900000", underflow(Write, 1, 900_000)),
    row("overflow_grown", "0 after 0 300000 300001", canary_after(0, 300_001)),
    row("underflow_write", "16 1", underflow(Write, 1, 16)),
    row("underflow_write", "16 8", underflow(Write, 8, 16)),
    row("underflow_write", "13 1", underflow(Write, 1, 13)),
    row("underflow_write", "100 1", underflow(Write, 1, 100)),
    row("underflow_write", "4096 1", underflow(Write, 1, 4096)),
    row("underflow_write", "5000 8", underflow(Write, 8, 5000)),
    row("underflow_read", "13 1", underflow(Read, 1, 13)),
    row("underflow_read", "100 8", underflow(Read, 8, 100)),
    row("underflow_read", "5000 1", underflow(Read, 1, 5000)),
    row("underflow_exit", "48 1", underflow(Write, 1, 48)),
    row("overflow_write", "13", canary_after(0, 13)),
    row("overflow_write", "16", canary_after(0, 16)),
    row("overflow_write", "5000", canary_after(0, 5000)),
    row("overflow_write", "4096", overflow(Write, 0, 4096)),
    row("overflow_exit", "100", canary_after(0, 100)),
    row("uaf_read", "13 12", use_after_free(Read, 12, 13)),
    row("uaf_write", "5000 8", use_after_free(Write, 8, 5000)),
];

/// Found in `harden` with small objects: by the canaries on both sides, and in freed memory.
pub const SLAB: &[Row] = &[
    row("overflow_grown", "0 after 0 100 104", canary_after(0, 104)),
    row("overflow_grown", "0 before 1 100 104", canary_before(1, 104)),
    row("overflow_grown", "0 after 0 1000 700", canary_after(0, 700)),
    row("overflow_grown", "0 after 0 5000 8100", canary_after(0, 8100)),
    row("overflow_grown", "0 after 0 300000 300001", canary_after(0, 300_001)),
    row("overflow_write", "13", canary_after(0, 13)),
    row("overflow_write", "16", canary_after(0, 16)),
    row("overflow_write", "100", canary_after(0, 100)),
    row("overflow_write", "1000", canary_after(0, 1000)),
    row("overflow_run", "13 8", canary_after(0, 13)),
    row("overflow_run", "24 8", canary_after(0, 24)),
    row("overflow_memset", "100 16", canary_after(0, 100)),
    row("overflow_strcpy", "13", canary_after(0, 13)),
    row("overflow_strcpy", "24", canary_after(0, 24)),
    row("overflow_strdup", "", canary_after(0, 13)),
    row("overflow_loop", "25", canary_after(0, 100)),
    row("overflow_realloc", "13", canary_after(0, 13)),
    row("overflow_aligned", "64 100", canary_after(0, 100)),
    row("overflow_neighbours", "24 1", canary_after(0, 24)),
    row("overflow_neighbours", "24 40", canary_after(0, 24)),
    row("overflow_neighbours", "100 300", canary_after(0, 100)),
    row("overflow_exit", "13", canary_after(0, 13)),
    row("overflow_exit", "100", canary_after(0, 100)),
    row("overflow_thread", "24", canary_after(0, 24)),
    row("overflow_fork", "24", canary_after(0, 24).by_child()),
    row("overflow_new", "7", canary_after(0, 14)),
    row("overflow_vector", "10", canary_after(0, 40)),
    row("underflow_write", "16 1", canary_before(1, 16)),
    row("underflow_write", "16 8", canary_before(8, 16)),
    row("underflow_write", "13 1", canary_before(1, 13)),
    row("underflow_write", "100 8", canary_before(8, 100)),
    row("underflow_exit", "24 1", canary_before(1, 24)),
    row("underflow_exit", "100 1", canary_before(1, 100)),
    row("nul_write", "24 0", canary_after(0, 24)),
    row("nul_write", "13 0", canary_after(0, 13)),
    row("nul_write", "15 0", canary_after(0, 15)),
    row("nul_write", "100 2", canary_after(2, 100)),
    row("nul_write", "24 1 before", canary_before(1, 24)),
    row("waf_reuse", "56 0", write_after_free(0, 56)),
    row("waf_reuse", "24 8", write_after_free(8, 24)),
    row("waf_reuse", "1016 500", write_after_free(500, 1016)),
    row("waf_exit", "56 0", write_after_free(0, 56)),
    row("waf_exit", "13 12", write_after_free(12, 13)),
    row("waf_exit", "1016 500", write_after_free(500, 1016)),
];

/// Not the heap's to explain: the program ends by this signal, without a word from the library.
pub const FOREIGN: &[(&str, i32)] = &[("foreign_fault", libc::SIGSEGV), ("foreign_abort", libc::SIGABRT)];

/// Run by `tests/ending.rs`, `tests/hostile.rs` and `tests/symbols.rs`, each in its own way.
pub const ENDING: &[&str] = &[
    "fault_inside",
    "fault_waits",
    "leak_kinds",
    "many_errors",
    "overflow_mended",
    "report_held",
    "stack_overflow",
    "stack_use",
    "statics",
    "vfork_reports",
];

/// Run by `tests/canaries.rs`, each in its own way.
pub const CANARIES: &[&str] = &["canary_forge", "stale_calloc", "text_past_end", "touching", "underrun"];

/// Correct programs: silent, with status 0.
pub const CLEAN: &[&str] = &[
    "clean_align",
    "clean_barrier",
    "clean_calloc",
    "clean_cancel",
    "clean_containers",
    "clean_detached",
    "clean_dlopen",
    "clean_errno",
    "clean_errno_start",
    "clean_exceptions",
    "clean_exec",
    "clean_exit",
    "clean_fork_threads",
    "clean_grow",
    "clean_handle",
    "clean_huge",
    "clean_jump",
    "clean_libc",
    "clean_limit",
    "clean_limit_data",
    "clean_limit_late",
    "clean_many",
    "clean_mask_inherited",
    "clean_masks",
    "clean_mlock",
    "clean_mlockall",
    "clean_new",
    "clean_onstack",
    "clean_realloc",
    "clean_runtime",
    "clean_segv_default",
    "clean_segv_handler",
    "clean_signals",
    "clean_sent",
    "clean_spawn",
    "clean_thread_attr",
    "clean_thread_storm",
    "clean_threads",
    "clean_tls",
    "clean_trim",
    "clean_usable_size",
    "clean_vfork",
    "clean_zero",
    "clean_zero_many",
];
