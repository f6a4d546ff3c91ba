//! What the benchmark drivers share.
//!
//! ```text
//! drivers      micro  vm  apps  instructions  tables
//!                 \    |   /        |          /
//! report       tables and charts from records
//! record       dated CSV files, with the machine they come from
//! runner       a measured process and how to talk to it        child   a whole program, its time and memory
//! heap         the one table of allocators                     cargo   builds what the drivers measure
//! ```
//!
//! A driver never links an allocator it measures: each stands in a process of its own, so that rivals can be run in
//! turn (A B A B) and one that crashes or hangs costs a row and not the run.

#![allow(
    missing_docs,
    reason = "the drivers' shared code, published to nobody; names that say it all carry no comment"
)]

pub mod cargo;
pub mod child;
pub mod heap;
pub mod record;
pub mod report;
pub mod runner;
pub mod stats;
