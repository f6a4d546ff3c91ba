//! What a forked child finds that another thread of its parent was in the middle of. Each part runs in a process of its own,
//! since it starts the heap: this binary executes itself.

use super::super::{leaks, limit, reports, shared, thread as states};
use super::*;
use crate::heap::start::{Overrides, ensure_started, is_own_process};
use crate::slab::sweep;
use crate::sys::guard;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{env, format, thread};

/// Says which part this process is to run.
const PART: &str = "FENCEPOST_INHERITED";
/// Seconds after which a child that waits is ended, by SIGALRM, or if that is blocked by its parent soon afterwards.
const SECONDS: u32 = 5;

/// Calls what it is given while the part's lock is held.
type Holds = fn(&mut dyn FnMut());

/// A lock, and how a child sees that it is not held.
struct Part {
    name: &'static str,
    holds: Holds,
    works: fn() -> bool,
}

const PARTS: &[Part] = &[
    Part {
        name: "shared state",
        holds: |held| {
            shared::with(|_| held());
        },
        works: || shared::with(|_| ()).is_some(),
    },
    Part {
        name: "search for leaks",
        holds: |held| {
            let _searching = leaks::SEARCHING.enter().expect("nobody has it");
            held();
        },
        works: || leaks::SEARCHING.enter().is_some(),
    },
    Part { name: "look", holds: sweep::while_looking, works: sweep_works },
    Part {
        name: "poisoned ranges",
        holds: |held| {
            let _lock = poison::LOCK.lock_signal_safe().expect("nobody has it");
            held();
        },
        works: || poison::LOCK.lock_signal_safe().is_some(),
    },
    Part {
        name: "registry of states",
        holds: |held| {
            let _registry = states::REGISTRY.lock_signal_safe().expect("nobody has it");
            held();
        },
        works: || states::REGISTRY.lock_signal_safe().is_some(),
    },
    Part {
        name: "class",
        holds: |held| {
            central::with_opened(7, |_| held());
        },
        works: || central::with_opened(7, |_| ()).is_some(),
    },
    Part {
        name: "shard",
        holds: |held| {
            heap().page.while_placing(held);
        },
        works: || heap().page.while_placing(&mut || ()),
    },
    Part {
        name: "report",
        holds: |held| {
            fatal::write_pieces(reports().expect("the heap has started"), |_, _| {
                held();
                true
            });
        },
        works: || {
            let mut written = false;
            fatal::write_pieces(reports().expect("the heap has started"), |_, _| {
                written = true;
                true
            });
            written
        },
    },
    Part {
        name: "disposition",
        holds: |held| action::change(libc::SIGUSR1, |_, _| held()),
        works: || action::change(libc::SIGUSR1, |_, _| true),
    },
    Part {
        name: "mended guard",
        holds: guard::while_mending,
        works: || {
            guard::while_mending(&mut || ());
            true
        },
    },
    Part {
        name: "cut",
        holds: |held| {
            let _cutting = limit::CUTTING.enter().expect("nobody has it");
            held();
        },
        works: || limit::CUTTING.enter().is_some(),
    },
];

fn sweep_works() -> bool {
    let mut looked = false;
    sweep::while_looking(&mut || looked = true);
    looked
}

/// The status of a forked child that asks whether `works`, within a time limit.
fn in_child(works: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child uses the heap, which is what is tested, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: sets a timer, and ends the process.
        unsafe {
            libc::alarm(SECONDS);
            libc::_exit(i32::from(!works()));
        }
    }
    let (mut status, end) = (0, Instant::now() + Duration::from_secs(2 * u64::from(SECONDS)));
    loop {
        let may_wait = Instant::now() < end;
        // SAFETY: the status is live, the child is this process's and was not waited for.
        let waited = unsafe {
            if !may_wait {
                libc::kill(child, libc::SIGKILL);
            }
            libc::waitpid(child, &raw mut status, if may_wait { libc::WNOHANG } else { 0 })
        };
        if waited != 0 {
            assert_eq!(waited, child);
            return status;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What `action` returns while another thread holds the part's lock.
fn while_held<R>(part: &Part, action: impl FnOnce() -> R) -> R {
    ensure_started(&Overrides::NONE);
    assert!((part.works)(), "{}: before", part.name);
    let (said, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let holder = thread::spawn({
        let holds = part.holds;
        move || {
            holds(&mut || {
                said.send(()).expect("the other waits");
                let _ = released.recv();
            });
        }
    });
    is_held.recv_timeout(Duration::from_secs(SECONDS.into())).expect("it is held");
    let result = action();
    drop(release);
    holder.join().expect("no panic");
    assert!((part.works)(), "{}: afterwards", part.name);
    result
}

fn inherits(part: &Part) {
    let status = while_held(part, || in_child(|| (part.works)() && is_own_process()));
    assert_eq!(status, 0, "{}: the child's wait status", part.name);
}

/// A thread in the shared state gets none of these locks while another has them, and does not wait.
fn tries() {
    for part in PARTS.iter().filter(|part| ["class", "shard"].contains(&part.name)) {
        let works = part.works;
        let answer = while_held(part, || {
            let (say, answer) = mpsc::channel();
            thread::spawn(move || say.send(shared::with(|_| works())));
            answer.recv_timeout(Duration::from_secs(SECONDS.into()))
        });
        assert_eq!(answer, Ok(Some(false)), "{}", part.name);
    }
}

/// A thread that forks while it has a lock has it in the child as well, by the id that it has there: it does not wait for itself.
fn keeps() {
    ensure_started(&Overrides::NONE);
    let (page, mut status) = (&heap().page, None);
    page.while_placing(&mut || status = Some(in_child(|| !page.while_placing(&mut || ()))));
    assert_eq!(status, Some(0), "the child's wait status");
}

/// A thread that ends in the middle of the allocator leaves what it has to others.
fn abandons() {
    ensure_started(&Overrides::NONE);
    let (said, is_left) = mpsc::channel();
    thread::spawn(move || {
        let leave = || {
            // SAFETY: what this thread has it uses no more: it sleeps for good.
            unsafe { abandon_all() };
            said.send(()).expect("the other waits");
            loop {
                thread::park();
            }
        };
        sweep::while_looking(&mut || {
            heap().page.while_placing(&mut || {
                central::with_opened(7, |_| leave());
            });
        });
    });
    is_left.recv().expect("it is left");
    // SAFETY: sets a timer.
    unsafe { libc::alarm(SECONDS) };
    assert!(
        sweep_works() && heap().page.while_placing(&mut || ()) && central::with_opened(7, |_| ()).is_some()
    );
}

/// With a seed, too, a child draws other numbers than its parent, which goes on in its own order.
fn draws() {
    ensure_started(&Overrides::NONE);
    rng::set_seed(7);
    // Forks are counted by threads that have a state.
    states::with(|_| ()).expect("a state");
    let number = || (rng::Rng::new().next_u64() & 0x7f) as i32;
    let alike = (0..20).filter(|_| {
        let status = in_child(|| {
            // SAFETY: ends the process.
            unsafe { libc::_exit(number()) }
        });
        libc::WEXITSTATUS(status) == number()
    });
    assert!(alike.count() < 10);
}

#[test]
fn part() {
    let Ok(name) = env::var(PART) else { return };
    match PARTS.iter().find(|part| part.name == name) {
        Some(part) => inherits(part),
        None if name == "seed" => draws(),
        None if name == "own lock" => keeps(),
        None if name == "shared state's tries" => tries(),
        None => abandons(),
    }
}

#[test]
fn a_child_waits_for_no_thread_that_it_does_not_have() {
    let names = PARTS.iter().map(|part| part.name).chain([
        "a thread's end",
        "seed",
        "own lock",
        "shared state's tries",
    ]);
    let failures: Vec<_> = names
        .filter_map(|name| {
            let mut command = Command::new(env::current_exe().expect("the system knows which file this is"));
            command.args(["heap::lifecycle::tests::part", "--exact", "--nocapture", "--test-threads=1"]);
            let output = command.env(PART, name).output().expect("it can be executed");
            let text = std::string::String::from_utf8_lossy(&output.stderr).into_owned();
            (!output.status.success()).then(|| format!("{name}: {} {text}", output.status))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
