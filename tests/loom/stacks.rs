//! Stacks in the depot, and rules in the cache.

use super::*;

/// The stack with these program counters.
fn stack(pcs: &[usize]) -> Frames {
    let mut frames = Frames::EMPTY;
    pcs.iter().for_each(|pc| frames.push(*pc));
    frames
}

/// Where a stack's search in the depot's table starts: the depot's own function.
fn home(pcs: &[usize]) -> usize {
    let hash = pcs.iter().fold(pcs.len() as u64, |hash, pc| {
        (hash.rotate_left(5) ^ *pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (hash >> 46) as usize
}

/// Two stacks whose searches start at one place: there two threads meet.
fn colliding() -> [usize; 2] {
    let first = 0x5555_0000;
    let second = (first + 1..).find(|pc| home(&[*pc]) == home(&[first]));
    [first, second.expect("there are more stacks than places")]
}

/// A depot, and all atomics made that `stacks` take; as for [`unused_record`].
fn empty_depot(stacks: &[&[usize]]) -> Arc<Depot> {
    let depot = Depot::map(true).expect("the stub maps");
    assert!((1..16).all(|number| depot.get(number).as_slice().is_empty()));
    let table = sys::vm::nth(0).as_ptr::<AtomicU32>();
    for place in stacks.iter().flat_map(|pcs| home(pcs)..home(pcs) + stacks.len()) {
        // SAFETY: the stub maps more than the table's places, and zero bytes are an atomic.
        assert_eq!(unsafe { (*table.add(place)).load(Ordering::Relaxed) }, 0);
    }
    assert_ne!(depot.insert(&stack(&[0x5555_3000])), 0);
    Arc::new(depot)
}

fn insert_on_two_threads(first: Vec<usize>, second: Vec<usize>) {
    model(move || {
        let depot = empty_depot(&[&first, &second]);
        let other = {
            let (depot, pcs) = (depot.clone(), second.clone());
            thread::spawn(move || insert(&depot, &pcs))
        };
        let number = insert(&depot, &first);
        let other = other.join().expect("no panic");
        assert_eq!(number == other, first == second, "{number} {other}");
        assert_eq!(depot.get(number).as_slice(), first);
        assert_eq!(depot.get(other).as_slice(), second);
        assert_eq!(depot.insert(&stack(&first)), number, "a stack keeps its number");
    });
}

/// Inserts and reads back.
fn insert(depot: &Depot, pcs: &[usize]) -> u32 {
    let number = depot.insert(&stack(pcs));
    assert_ne!(number, 0);
    assert_eq!(depot.get(number).as_slice(), pcs, "readable by whoever was told the number");
    number
}

#[test]
fn equal_stacks_get_one_number() {
    insert_on_two_threads(vec![0x5555_1000, 0x5555_2000], vec![0x5555_1000, 0x5555_2000]);
}

#[test]
fn different_stacks_get_two_numbers() {
    insert_on_two_threads(vec![0x5555_1000, 0x5555_2000], vec![0x5555_1000]);
}

#[test]
fn different_stacks_of_one_place_get_two_numbers() {
    let [first, second] = colliding();
    insert_on_two_threads(vec![first], vec![second]);
}

/// Three threads, two of them with equal stacks, at one place of the table.
#[test]
fn equal_stacks_get_one_number_beside_a_third() {
    let [first, second] = colliding();
    bounded_model(1, move || {
        let depot = empty_depot(&[&[first], &[second], &[first]]);
        let spawn = |pc: usize| {
            let depot = depot.clone();
            thread::spawn(move || insert(&depot, &[pc]))
        };
        let (same, other) = (spawn(first), spawn(second));
        let number = insert(&depot, &[first]);
        assert_eq!(same.join().expect("no panic"), number);
        assert_ne!(other.join().expect("no panic"), number);
    });
}

/// The rule that is kept for a program counter: each has another.
fn rule_of(pc: usize) -> Rule {
    Rule::frame(Kind::Offset, SP, 8 * (pc as i64 & 0xff), 0, CallerFp::Same, 0)
}

/// Program counters of one pair of the cache's places: its own function.
fn of_one_pair<const N: usize>() -> [usize; N] {
    let home = |pc: &usize| (*pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 10);
    let first = 0x5555_0001;
    let mut all = (first..).filter(|pc| home(pc) == home(&first));
    [(); N].map(|()| all.next().expect("there are more than pairs"))
}

/// Two threads keep rules in one pair of places, where they displace each other; one reads meanwhile, and
/// finds the right rule or none.
#[test]
fn a_rule_is_read_whole_or_not_at_all() {
    bounded_model(3, || {
        let pcs: [usize; 3] = of_one_pair();
        let cache = Arc::new(Cache::map(true).expect("the stub maps"));
        cache.set(pcs[2], rule_of(pcs[2]));
        let other = {
            let cache = cache.clone();
            thread::spawn(move || cache.set(pcs[0], rule_of(pcs[0])))
        };
        cache.set(pcs[1], rule_of(pcs[1]));
        assert!(cache.get(pcs[0]).is_none_or(|rule| rule == rule_of(pcs[0])));
        other.join().expect("no panic");
        assert!(pcs.iter().all(|pc| cache.get(*pc).is_none_or(|rule| rule == rule_of(*pc))));
    });
}
