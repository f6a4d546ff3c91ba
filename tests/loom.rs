//! Models of the lock-free parts, run by loom under every interleaving and every outcome that the memory
//! orderings permit.
//!
//! The code itself is under test: `meta::poison`, `meta::record`, `slab::poison`, `page::poison`, `trace::depot`, `trace::cache`, `page::chunk`, `page::remote`, `slab::magazine`,
//! `slab::transfer`, `slab::fifo`, `slab::owners`, `slab::look` and `sync::lock` are included as they are, with small modules here in the place
//! of what they use. Their atomics are [`sync::atomic`]'s, which are loom's inside a model; unlike loom's own they can be
//! constants and lie in zeroed memory.
//!
//! Each protocol has a mutation: the same model with a step left out or two swapped, which has to fail.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom --target-dir target/loom`; without the flag this
//! file is empty.

#![cfg(loom)]
// Each included file is used in part.
#![allow(dead_code)]

#[path = "../src/addr.rs"]
mod addr;
#[path = "../src/page/chunk.rs"]
mod chunk;
#[path = "../src/fault.rs"]
mod fault;
#[path = "../src/slab/fifo.rs"]
mod fifo;
#[path = "../src/slab/look.rs"]
mod look;
#[path = "../src/slab/magazine.rs"]
mod magazine;
#[path = "../src/meta/poison.rs"]
mod marks;
#[path = "../src/slab/owners.rs"]
mod owners;
#[path = "../src/meta/record.rs"]
mod record;
#[path = "../src/page/remote.rs"]
mod remote;
#[path = "../src/request.rs"]
mod request;
#[path = "loom/sync.rs"]
mod sync;
#[path = "loom/sys.rs"]
mod sys;
#[path = "../src/slab/transfer.rs"]
mod transfer;

#[path = "loom/chunks.rs"]
mod chunks;
#[path = "loom/fronts.rs"]
mod fronts;
#[path = "loom/locks.rs"]
mod locks;
#[path = "loom/looks.rs"]
mod looks;
#[path = "loom/pages.rs"]
mod pages;
#[path = "loom/poisons.rs"]
mod poisons;
#[path = "loom/records.rs"]
mod records;
#[path = "loom/slots.rs"]
mod slots;
#[path = "loom/stacks.rs"]
mod stacks;
#[path = "loom/transfers.rs"]
mod transfers;
/// As `src/meta/mod.rs` has them.
mod meta {
    pub(crate) use crate::marks as poison;
    pub use crate::record::*;
}
/// As `src/trace/mod.rs` has them.
#[path = "../src/trace"]
mod trace {
    pub mod cache;
    pub mod depot;
}

use addr::{Addr, PageCount, Span};
use fault::Event;
use loom::sync::Arc;
use loom::thread;
use record::{Record, RecordId, Records, State};
use remote::RemoteFreeList;
use request::Origin;
use sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
use sync::{Guard, Lock, Rank};
use trace::cache::{Cache, CallerFp, Kind, Rule, SP};
use trace::depot::{Depot, Frames};

/// Runs `model` under loom. Threads are interrupted elsewhere than where they wait at most three times:
/// without a bound the larger models take hours.
fn model(model: impl Fn() + Sync + Send + 'static) {
    bounded_model(3, model);
}

fn bounded_model(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(move || {
        let model_here = sync::enter();
        model();
        drop(model_here);
        sys::vm::unmap_all();
    });
}
