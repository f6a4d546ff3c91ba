//! Which allocator serves a request. Pure.

use crate::addr::PAGE_SIZE;
use crate::options::{GuardSide, Mode, Options};
use crate::page::Side;

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The slab allocator.
    Slab,
    /// The page allocator; `optional` objects go to the slab allocator when it refuses them.
    Page {
        /// Whether the budget applies.
        optional: bool,
    },
}

/// The route of a request for `size` bytes aligned to `align`; `sampled` says whether the sampler
/// picked it (patrol only). `slab_align` is the largest alignment that slots offer.
pub fn route(options: &Options, size: usize, align: usize, sampled: bool, slab_align: usize) -> Route {
    if size == 0 {
        // Where nothing can be touched, and no memory is held.
        return Route::Page { optional: align <= slab_align };
    }
    let small = size < PAGE_SIZE;
    match options.mode {
        Mode::Hunt => Route::Page { optional: small && align <= slab_align },
        Mode::Harden | Mode::Patrol => {
            if size as u64 >= options.unmap_threshold || align > slab_align {
                Route::Page { optional: false }
            } else if sampled && options.mode == Mode::Patrol {
                Route::Page { optional: true }
            } else {
                Route::Slab
            }
        }
    }
}

/// Requests of one byte to below this size go to the slab allocator whatever else they ask, as long as their alignment
/// is the ABI's, and in patrol the sampler does not pick them. 0 when each request must be looked at.
pub fn fast_limit(options: &Options) -> usize {
    match options.mode {
        _ if options.looks_at_all() => 0,
        Mode::Harden | Mode::Patrol => usize::try_from(options.unmap_threshold).unwrap_or(usize::MAX),
        Mode::Hunt => 0,
    }
}

/// The side of a guarded object; `coin` decides where that is left to chance.
pub fn side(options: &Options, coin: bool) -> Side {
    match options.guard_side {
        GuardSide::Right => Side::Right,
        GuardSide::Left => Side::Left,
        GuardSide::Random if coin => Side::Left,
        GuardSide::Random => Side::Right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mode: Mode) -> Options {
        Options { mode, ..Options::DEFAULT }.normalised(PAGE_SIZE)
    }

    #[test]
    fn the_border_is_the_threshold() {
        let harden = options(Mode::Harden);
        assert_eq!(route(&harden, PAGE_SIZE - 1, 16, false, 1024), Route::Slab);
        assert_eq!(route(&harden, PAGE_SIZE, 16, false, 1024), Route::Page { optional: false });
        assert_eq!(route(&harden, 1, 2048, false, 1024), Route::Page { optional: false });
        let wide = Options { unmap_threshold: 131_072, ..harden };
        assert_eq!(route(&wide, 131_071, 16, false, 1024), Route::Slab);
        assert_eq!(fast_limit(&wide), 131_072);
    }

    #[test]
    fn a_random_side_is_drawn() {
        let of = |guard_side, coin| side(&Options { guard_side, ..Options::DEFAULT }, coin);
        assert_eq!([true, false].map(|coin| of(GuardSide::Random, coin)), [Side::Left, Side::Right]);
        assert_eq!([true, false].map(|coin| of(GuardSide::Left, coin)), [Side::Left; 2]);
        assert_eq!([true, false].map(|coin| of(GuardSide::Right, coin)), [Side::Right; 2]);
    }

    #[test]
    fn objects_of_no_bytes_lie_in_no_slab() {
        for mode in [Mode::Harden, Mode::Patrol, Mode::Hunt] {
            assert_eq!(route(&options(mode), 0, 16, false, 1024), Route::Page { optional: true });
            assert_eq!(route(&options(mode), 0, 4096, false, 1024), Route::Page { optional: false });
        }
    }

    #[test]
    fn hunt_guards_everything_and_patrol_what_is_sampled() {
        assert_eq!(route(&options(Mode::Hunt), 1, 16, false, 1024), Route::Page { optional: true });
        let patrol = options(Mode::Patrol);
        assert_eq!(route(&patrol, 1, 16, true, 1024), Route::Page { optional: true });
        assert_eq!(route(&patrol, 1, 16, false, 1024), Route::Slab);
    }
}
