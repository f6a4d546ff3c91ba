//! Two classes take pages of the front while a third thread looks whose they are.

use super::*;
use owners::{NOBODY, PageOwners};

type Front = PageOwners<3, 2>;

/// Takes pages for a class, whose memory begins in the first of them, and says so by `tell`.
fn open(front: &Front, class: usize, count: usize, tell: fn(&Front, std::ops::Range<usize>, usize, usize)) {
    if let Some(pages) = front.claim(count) {
        let start = start_in(pages.start);
        tell(front, pages, class, start);
    }
}

fn start_in(page: usize) -> usize {
    100 + page
}

fn two_open(tell: fn(&Front, std::ops::Range<usize>, usize, usize)) {
    model(move || {
        let front = Arc::new(Front::new());
        // Loom's atomics are made before there are threads.
        assert_eq!(front.claim(0), Some(0..0));
        // SAFETY: there are so many pages and owners, here and below.
        unsafe {
            (0..3).for_each(|page| assert_eq!(front.owner(page), NOBODY));
            (0..2).for_each(|class| assert_eq!(front.start(class), 0));
        }
        let others = [(0, 2), (1, 1)].map(|(class, count)| {
            let front = front.clone();
            thread::spawn(move || open(&front, class, count, tell))
        });
        let mut seen = [None; 3];
        for (page, seen) in seen.iter_mut().enumerate() {
            // SAFETY: the pages are 0 to 2.
            let owner = unsafe { front.owner(page) };
            if owner != NOBODY {
                // SAFETY: owners that were published are 0 and 1.
                let start = unsafe { front.start(usize::from(owner)) };
                assert!(start != 0 && start <= start_in(page), "the owner's memory is known");
                *seen = Some(owner);
            }
        }
        others.into_iter().for_each(|other| other.join().expect("no panic"));
        // SAFETY: the pages are 0 to 2.
        let owners: Vec<u8> = (0..3).map(|page| unsafe { front.owner(page) }).collect();
        assert!(
            owners == [0, 0, 1] || owners == [1, 0, 0],
            "each page has the owner that took it: {owners:?}"
        );
        let kept = seen.iter().zip(&owners).all(|(seen, owner)| seen.is_none_or(|seen| seen == *owner));
        assert!(kept, "for good");
    });
}

/// Who looks at a page finds nobody's, or whose it is for good and where that one's memory begins.
#[test]
fn who_sees_an_owner_sees_where_its_memory_begins() {
    two_open(|front, pages, class, start| front.publish(pages, class, start));
}

/// The mutation: whose the pages are is said first.
#[test]
#[should_panic(expected = "the owner's memory is known")]
fn an_owner_that_is_said_too_early_is_found() {
    two_open(|front, pages, class, start| {
        front.publish(pages, class, 0);
        front.starts.get(class).expect("two owners").store(start, Ordering::Release);
    });
}
