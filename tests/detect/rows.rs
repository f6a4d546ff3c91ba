//! The table: which bug must be reported how, by which allocator, with the guard on which side.
//!
//! Rust's layouts of alignment 1 put an object's last byte at its guard whatever its size.

use crate::support::expectation::{Expectation, Found};
use crate::support::report::Access::{self, Read, Write};
use crate::support::report::{Relation, Side};

/// A bug with its arguments, and its report.
#[derive(Clone)]
pub struct Row {
    pub bug: String,
    pub expected: Expectation,
}

fn row(bug: impl Into<String>, expected: Expectation) -> Row {
    Row { bug: bug.into(), expected }
}

const PAGE: usize = 4096;

fn expect(kind: &'static str, found: Found, relation: Option<(usize, Side, usize)>) -> Expectation {
    let relation = relation.map(|(distance, side, object_size)| Relation {
        distance: distance as u64,
        side,
        object_size: object_size as u64,
    });
    Expectation {
        kind,
        found,
        relation,
        access: None,
        alloc_stack: false,
        free_stack: false,
        in_child: false,
    }
}

fn at_access(kind: &'static str, access: Access, distance: usize, side: Side, size: usize) -> Expectation {
    Expectation { access: Some(access), ..expect(kind, Found::AtAccess, Some((distance, side, size))) }
}

pub fn overflow(access: Access, distance: usize, size: usize) -> Expectation {
    at_access("heap-buffer-overflow", access, distance, Side::After, size)
}

fn underflow(access: Access, distance: usize, size: usize) -> Expectation {
    at_access("heap-buffer-underflow", access, distance, Side::Before, size)
}

pub fn use_after_free(access: Access, distance: usize, size: usize) -> Expectation {
    at_access("heap-use-after-free", access, distance, Side::Inside, size)
}

pub fn canary_after(distance: usize, size: usize) -> Expectation {
    expect("canary-overwritten", Found::ByCheck, Some((distance, Side::After, size)))
}

fn canary_before(distance: usize, size: usize) -> Expectation {
    expect("canary-overwritten", Found::ByCheck, Some((distance, Side::Before, size)))
}

fn write_after_free(distance: usize, size: usize) -> Expectation {
    expect("write-after-free", Found::ByCheck, Some((distance, Side::Inside, size)))
}

pub fn double_free(size: usize) -> Expectation {
    expect("double-free", Found::ByCheck, Some((0, Side::Inside, size)))
}

fn interior(distance: usize, size: usize) -> Expectation {
    expect("invalid-free", Found::ByCheck, Some((distance, Side::Inside, size)))
}

fn bad_size(size: usize) -> Expectation {
    expect("bad-size", Found::ByCheck, Some((0, Side::Inside, size)))
}

/// What a wrong free looks like, whichever allocator has the object.
pub fn any_allocator(size: usize) -> Vec<Row> {
    let mut rows = vec![
        row(format!("double_free {size}"), double_free(size)),
        row(format!("double_free_thread {size}"), double_free(size)),
        row(format!("double_free_by_thread {size}"), double_free(size)),
        row(format!("realloc_freed {size}"), double_free(size)),
    ];
    for offset in [1, 8, size - 1] {
        rows.push(row(format!("interior_free {size} {offset}"), interior(offset, size)));
    }
    for stated in [1, size - 1, size + 1, 50_000] {
        rows.push(row(format!("bad_size {size} {stated}"), bad_size(size)));
    }
    let bad_alignment = expect("bad-alignment", Found::ByCheck, Some((0, Side::Inside, size)));
    rows.push(row(format!("bad_alignment {size} 1048576"), bad_alignment));
    rows.push(row(format!("interior_realloc {size} 8"), interior(8, size)));
    rows.push(row(format!("bad_size_realloc {size} {}", size + 1), bad_size(size)));
    rows
}

/// Objects that are freed, or resized, with another alignment than they were allocated with: (allocated, stated).
fn other_alignments(size: usize, pairs: &[(usize, usize)]) -> Vec<Row> {
    let bad_alignment = expect("bad-alignment", Found::ByCheck, Some((0, Side::Inside, size)));
    let rows = |(align, stated)| {
        ["other_alignment", "other_alignment_realloc"]
            .map(|bug| row(format!("{bug} {size} {align} {stated}"), bad_alignment))
    };
    pairs.iter().copied().flat_map(rows).collect()
}

/// Guarded objects have their alignment in their record: the address, which may have the stated one by chance, says
/// nothing.
pub fn guarded_alignments(size: usize) -> Vec<Row> {
    other_alignments(size, &[(8, 4096), (4096, 8), (1, 8), (16, 8), (64, 128), (8192, 16), (16, 8192)])
}

/// Slots tell the alignments that their class cannot have, and objects that no slot can hold are guarded.
pub fn slot_alignments(size: usize) -> Vec<Row> {
    other_alignments(size, &[(8, 64), (16, 1024), (8, 4096), (4096, 8), (2048, 64)])
}

/// The slab allocator: canaries on both sides, checked at free and on request; freed memory checked at reuse and
/// on request.
pub fn slab(size: usize) -> Vec<Row> {
    let mut rows = vec![
        row(format!("overflow_write {size}"), canary_after(0, size)),
        row(format!("overflow_write_at {size} 7"), canary_after(7, size)),
        row(format!("overflow_check {size}"), canary_after(0, size)),
        row(format!("overflow_realloc {size}"), canary_after(0, size)),
        row(format!("overflow_thread {size}"), canary_after(0, size)),
    ];
    for distance in [1, 8] {
        rows.push(row(format!("underflow_write {size} {distance}"), canary_before(distance, size)));
        rows.push(row(format!("underflow_check {size} {distance}"), canary_before(distance, size)));
    }
    rows.extend(written_later(size));
    rows
}

/// Freed memory that stays open, in slabs or until its batch ends: a write is found by a check.
pub fn written_later(size: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for offset in [0, size / 2, size - 1] {
        rows.push(row(format!("waf_reuse {size} {offset}"), write_after_free(offset, size)));
        rows.push(row(format!("waf_reuse_zeroed {size} {offset}"), write_after_free(offset, size)));
        rows.push(row(format!("waf_check {size} {offset}"), write_after_free(offset, size)));
    }
    rows
}

/// The page allocator wherever the guard is: a freed object is gone.
pub fn page_any_side(size: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for offset in [0, size / 2, size - 1] {
        rows.push(row(format!("uaf_read {size} {offset}"), use_after_free(Read, offset, size)));
        rows.push(row(format!("uaf_write {size} {offset}"), use_after_free(Write, offset, size)));
    }
    rows.push(row(format!("uaf_late {size}"), use_after_free(Read, 0, size)));
    rows.push(row(format!("uaf_thread {size}"), use_after_free(Write, 0, size)));
    // More than the object's address space has room for, so that it moves.
    rows.push(row(format!("realloc_stale {size} 9000000"), use_after_free(Write, 0, size)));
    rows
}

/// The page allocator with the guard on the right: what is behind an object is found at the access, what is
/// before it by its canary.
pub fn page_right(size: usize) -> Vec<Row> {
    let mut rows = vec![
        row(format!("overflow_write {size}"), overflow(Write, 0, size)),
        row(format!("overflow_read {size}"), overflow(Read, 0, size)),
        row(format!("overflow_write_at {size} 100"), overflow(Write, 100, size)),
        row(format!("overflow_check {size}"), overflow(Write, 0, size)),
        row(format!("overflow_thread {size}"), overflow(Write, 0, size)),
    ];
    for distance in [1, 8] {
        if size.is_multiple_of(PAGE) {
            rows.push(row(format!("underflow_write {size} {distance}"), underflow(Write, distance, size)));
            rows.push(row(format!("underflow_read {size} {distance}"), underflow(Read, distance, size)));
        } else {
            rows.push(row(format!("underflow_write {size} {distance}"), canary_before(distance, size)));
            rows.push(row(format!("underflow_check {size} {distance}"), canary_before(distance, size)));
        }
    }
    // Alignment leaves slack behind the object: there the canary finds what the guard does not.
    if !size.is_multiple_of(64) {
        rows.push(row(format!("overflow_write {size} 64"), canary_after(0, size)));
        rows.push(row(format!("overflow_check {size} 64"), canary_after(0, size)));
        rows.push(row(format!("overflow_realloc {size} 64"), canary_after(0, size)));
        let slack = size.next_multiple_of(64) - size;
        rows.push(row(format!("overflow_write_at {size} {slack} 64"), overflow(Write, slack, size)));
    }
    rows
}

/// The page allocator with the guard on the left: the other way round.
pub fn page_left(size: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for distance in [1, 8] {
        rows.push(row(format!("underflow_write {size} {distance}"), underflow(Write, distance, size)));
        rows.push(row(format!("underflow_read {size} {distance}"), underflow(Read, distance, size)));
    }
    if size.is_multiple_of(PAGE) {
        rows.push(row(format!("overflow_write {size}"), overflow(Write, 0, size)));
        rows.push(row(format!("overflow_read {size}"), overflow(Read, 0, size)));
    } else {
        rows.push(row(format!("overflow_write {size}"), canary_after(0, size)));
        rows.push(row(format!("overflow_check {size}"), canary_after(0, size)));
    }
    rows
}

/// Small objects that the sampler may pick: the bug is committed on one after another.
pub fn sampled(size: usize) -> Vec<Row> {
    vec![
        row(format!("overflow_read_often {size}"), overflow(Read, 0, size)),
        row(format!("uaf_read_often {size}"), use_after_free(Read, 0, size)),
    ]
}

/// The same with the guard on the left.
pub fn sampled_left(size: usize) -> Vec<Row> {
    vec![row(format!("underflow_read_often {size}"), underflow(Read, 1, size))]
}

/// Frees of pointers that are no object's.
pub fn foreign() -> Vec<Row> {
    let invalid = expect("invalid-free", Found::ByCheck, None);
    [
        "free_stack",
        "free_static",
        "free_function",
        "free_wild 4096",
        "free_wild 281474976710640",
        "realloc_stack",
    ]
    .map(|bug| row(bug, invalid))
    .to_vec()
}
