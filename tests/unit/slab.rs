//! The slab allocator: what its layout keeps secret, and what one thread's cache looks at.

use super::cache::{self, Cache};
use super::class::{self, Place};
use super::layout::{for_tests, layout};
use crate::addr::Addr;
use crate::fault::Kind;
use crate::request::{Claim, Origin};
use crate::sys::seal::tests::assert_sealed;
use std::process::Command;
use std::string::String;
use std::{env, format, println};

/// What the layout says, canaries' keys among it, nobody can write.
#[test]
fn the_layout_is_sealed() {
    assert_sealed(Addr::of(core::ptr::from_ref(for_tests())).get());
}

/// Each process has canaries of its own: this binary executes itself.
#[test]
fn keys_are_drawn() {
    let word = format!("{:x}", for_tests().key.word(0x1234_5670));
    if env::var_os("FENCEPOST_KEY").is_some() {
        println!("word {word}");
        return;
    }
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = Command::new(this);
    command.args(["slab::tests::keys_are_drawn", "--exact", "--nocapture"]);
    let output = command.env("FENCEPOST_KEY", "1").output().expect("it can be executed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("word ") && !text.contains(&format!("word {word}")), "{word}: {text}");
}

/// A live object of `size` bytes in a cache of its own, and its place.
fn object(cache: &mut Cache, size: usize) -> (Addr, Place) {
    // SAFETY: the class is the size's.
    let pointer = unsafe { cache.allocate(size, class::of_small(size), Origin::Malloc) };
    let address = Addr::of(pointer.cast_const());
    (address, cache::place(address).expect("a slot"))
}

fn byte(address: Addr, at: usize) -> *mut u8 {
    address.plus(at).as_ptr()
}

/// By the shortest and by the general path.
#[test]
fn a_resize_looks_at_slack_and_shows_none_of_it() {
    let mut cache = cache::for_tests();
    for shortest in [true, false] {
        let (address, place) = object(&mut cache, 203);
        let mut resized = |size| match shortest {
            // SAFETY: the object is this test's.
            true => unsafe { cache.resize_plain(address, None, size, Origin::Malloc) },
            false => cache.resize(place, size),
        };
        // SAFETY: bytes of the object's slot, which is this test's.
        unsafe {
            let good = byte(address, 203).read();
            assert_ne!(good, 0);
            byte(address, 203).write(7);
            assert!(!resized(204) && !resized(202), "the byte behind was written");
            byte(address, 203).write(good);
            assert!(resized(198) && resized(207));
            assert!((0..207).all(|at| byte(address, at).read() == 0));
        }
        let claim = Claim { address, size: Some(207), align: None, origin: Origin::Malloc };
        assert!(cache.free(place, &claim));
    }
}

/// A slot that stands in a magazine though it has an owner, or was written since its free, is found by whoever gets it.
#[test]
fn who_gets_a_slot_looks_at_it() {
    let mut cache = cache::for_tests();
    let size = 232;
    let class = class::of_small(size);
    let whole = layout().classes[class].size;
    for (freed, at, kind) in [
        (false, 0, Kind::DoubleFree),
        (true, 0, Kind::WriteAfterFree),
        (true, whole - 16, Kind::WriteAfterFree),
        (true, whole - 9, Kind::WriteAfterFree),
    ] {
        let (address, place) = object(&mut cache, size);
        if freed {
            assert!(cache.free(place, &Claim { address, size: None, align: None, origin: Origin::Malloc }));
            // SAFETY: a byte of the slot, which is this test's.
            unsafe { byte(address, at).write(7) };
        }
        let lists = cache.slots.lists(class).expect("a class");
        let (stack, len) = (lists.freed, lists.len);
        lists.magazine[len] = place.slot;
        lists.set(stack, len + 1);
        // SAFETY: the size is a small one.
        let shortest = unsafe { cache.allocate_plain::<true>(size, Origin::Malloc) };
        assert!(shortest.is_null(), "{kind:?} {at}");
        // SAFETY: the class is the size's.
        let general = unsafe { cache.allocate(size, class, Origin::Malloc) };
        let fault = cache.take_fault().expect("a fault");
        assert!(general.is_null() && fault.kind == kind, "{:?} {at}", fault.kind);
    }
}
