//! Stacks for handlers.

use super::*;
use std::vec::Vec;

#[test]
fn stacks_are_apart_and_come_back() {
    let stacks: Vec<Own> = (0..3).map(|_| take().expect("a stack").0).collect();
    for own in &stacks {
        // SAFETY: within the open stack.
        unsafe { Addr::new(own.low()).as_ptr::<u64>().write_volatile(1) };
        assert_eq!(vm::peek(Addr::new(own.low() - 1), &mut [0]), 0);
        assert_eq!(vm::peek(Addr::new(own.low() - GUARD), &mut [0]), 0);
        assert!(own.holds(own.top()) && own.holds(own.low()) && !own.holds(own.low() - 1));
    }
    for (number, own) in stacks.iter().enumerate() {
        assert!(stacks.iter().skip(number + 1).all(|other| other.low().abs_diff(own.low()) >= STRIDE));
    }
    stacks.into_iter().for_each(put_back);
    assert_ne!(FREE.load(Ordering::Relaxed) & PAGE_MASK, 0);
}

#[test]
fn many_threads_never_have_one_stack() {
    std::thread::scope(|scope| {
        for number in 1..=4_usize {
            scope.spawn(move || {
                for _ in 0..5_000 {
                    let (own, _) = take().expect("a stack");
                    own.0.low.store(number, Ordering::Relaxed);
                    std::hint::spin_loop();
                    assert_eq!(own.0.low.load(Ordering::Relaxed), number);
                    put_back(own);
                }
            });
        }
    });
}

/// Runs in a thread of its own, whose alternate stack nobody else sets.
fn in_a_thread(action: impl FnOnce() + Send + 'static) {
    std::thread::spawn(action).join().expect("no panic");
}

#[test]
fn the_program_is_told_of_its_own_stack() {
    in_a_thread(|| {
        let none = core::ptr::null_mut::<stack_t>();
        // SAFETY: live structures, here and below; the stack is not used.
        unsafe { kernel(&NOTHING, none) }.expect("a change");
        adopt();
        assert!(own().expect("a stack").is(&kernels()));
        let query = || {
            let mut answer = NOTHING;
            // SAFETY: the answer is a live structure, and nothing is set.
            unsafe { exchange(core::ptr::null(), &raw mut answer) }.map(|()| answer)
        };
        let answer = query().expect("an answer");
        assert_eq!((answer.ss_sp.addr(), answer.ss_flags, answer.ss_size), (0, libc::SS_DISABLE, 0));
        let mut memory = std::vec![0_u8; 16 << 10];
        let set = |flags, size| {
            let new = stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: flags, ss_size: size };
            // SAFETY: the structure is live. Its memory is not used: no signal comes in this test.
            unsafe { exchange(&raw const new, none) }
        };
        let mut set = set;
        assert_eq!(set(0, 100), Err(libc::ENOMEM));
        assert_eq!(set(77, 16 << 10), Err(libc::EINVAL));
        assert_eq!(set(0, 16 << 10), Ok(()));
        assert!(own().expect("a stack").is(&kernels()));
        assert_eq!(query().map(|answer| (answer.ss_flags, answer.ss_size)), Ok((0, 16 << 10)));
        assert_eq!(set(AUTODISARM, 8 << 10), Ok(()));
        assert!(!own().expect("a stack").is(&kernels()));
        assert_eq!(query().map(|answer| (answer.ss_flags, answer.ss_size)), Ok((AUTODISARM, 8 << 10)));
        assert_eq!(set(0, 16 << 10), Ok(()));
        leave();
        assert!(own().is_none());
        assert_eq!((kernels().ss_flags, kernels().ss_size), (0, 16 << 10));
        // SAFETY: the structure is a constant. It takes the stack away, on which nothing runs.
        unsafe { kernel(&NOTHING, none) }.expect("a change");
    });
}
