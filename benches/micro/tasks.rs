//! The list of workloads.

use fencepost_benches::runner::Task;

/// In every run, also the smoke run.
pub const SMOKE: u8 = 2;
/// In full and quick runs.
pub const QUICK: u8 = 1;
/// In full runs.
pub const FULL: u8 = 0;

/// Name for `--work`, task, level.
pub const ALL: &[(&str, Task, u8)] = &[
    ("pair", Task::new("pair", 16), QUICK),
    ("pair", Task::new("pair", 64), SMOKE),
    ("pair", Task::new("pair", 256), QUICK),
    ("pair", Task::new("pair", 1024), QUICK),
    ("pair", Task::new("pair", 4096), QUICK),
    ("pair", Task::new("pair", 16_384), FULL),
    ("pair", Task::new("pair", 65_536), QUICK),
    ("pair", Task::new("pair", 262_144), FULL),
    ("batch", Task::new("batch", 16), FULL),
    ("batch", Task::new("batch", 64), QUICK),
    ("batch", Task::new("batch", 256), FULL),
    ("batch", Task::new("batch", 1024), FULL),
    ("random", Task::new("random", 0), SMOKE),
    ("calloc", Task::new("calloc", 64), QUICK),
    ("calloc", Task::new("calloc", 1024), FULL),
    ("calloc", Task::new("calloc", 16_384), FULL),
    ("grow", Task::new("grow", 0), QUICK),
    ("aligned", Task::new("pair", 64).aligned(64), FULL),
    ("aligned", Task::new("pair", 256).aligned(256), FULL),
    ("aligned", Task::new("pair", 1024).aligned(4096), FULL),
    ("cross", Task::new("cross", 64).on(2), QUICK),
    ("mixed", Task::new("mixed", 0), FULL),
    ("mixed", Task::new("mixed", 0).on(2), SMOKE),
    ("mixed", Task::new("mixed", 0).on(4), FULL),
    ("mixed", Task::new("mixed", 0).on(8), FULL),
    ("live", Task::new("live", 0), FULL),
    ("live", Task::new("live", 0).on(2), FULL),
    ("million", Task::new("million", 64), FULL),
    ("fork", Task::new("fork", 1), FULL),
    ("fork", Task::new("fork", 20), FULL),
    ("fork", Task::new("fork", 60), FULL),
    ("fork", Task::new("fork", 200), FULL),
];

/// What `--threads` runs: the same work on one thread and on two, and objects that another thread frees.
pub const THREADS: &[Task] = &[
    Task::new("live", 0),
    Task::new("live", 0).on(2),
    Task::new("mixed", 0),
    Task::new("mixed", 0).on(2),
    Task::new("cross", 64).on(2),
];

/// Whether a request is better long, since each starts threads or makes thousands of objects.
pub fn in_spans(task: &Task) -> bool {
    task.threads > 1 || task.name == "live"
}

/// The task as criterion's output names it.
pub fn label(task: &Task) -> String {
    let mut label = task.name.to_owned();
    match task.size {
        0 => {}
        count if task.name == "fork" => label += &format!(" with {count} objects"),
        bytes => label += &format!(" {bytes} B"),
    }
    if task.align > 16 {
        label += &format!(" aligned to {}", task.align);
    }
    if task.threads > 1 {
        label += &format!(" on {} threads", task.threads);
    }
    label
}
