//! The places of the slabs' tables.

use super::*;

/// Wherever a mapping begins: no table reaches into the next, and the last ends in the mapping.
#[test]
fn tables_have_room() {
    for shift in REGION_SHIFT_MIN..=REGION_SHIFT_MAX {
        for start in [1 << 40, (1 << 40) + PAGE_SIZE, (1 << 40) + TABLE_SPAN - PAGE_SIZE] {
            let mut at = start;
            for class in 0..class::COUNT {
                let (states, end) = table_of(class, shift, at);
                let blocks = region_slabs(class, shift) * block_bytes(class::slab_shift(class));
                let highest = ((1 << shift) - 1) / class::size(class);
                assert!(states - blocks >= at && states + 2 * highest < end, "{class} of {shift}");
                assert!(states.is_multiple_of(8) && end.is_multiple_of(8));
                at = end;
            }
            assert!(at <= start + table_bytes(shift), "{shift}");
        }
    }
}
