//! What the launcher asks the kernel, for `doctor`.
//!
//! Each function answers one question and knows nothing of what follows from the answer; `None` means
//! that the kernel does not tell (no `/proc`, say).

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `MADV_GUARD_INSTALL` and `MADV_GUARD_REMOVE` of linux/mman.h, Linux 6.13.
const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;
/// Where control groups are mounted, version 2 and the memory controller of version 1.
const CGROUPS: &str = "/sys/fs/cgroup";
const CGROUPS_V1: &str = "/sys/fs/cgroup/memory";

/// The release of the kernel.
pub fn kernel() -> Option<String> {
    text("/proc/sys/kernel/osrelease")
}

/// Installs and removes a guard marker on a page of its own, and looks whether the kernel can read the page then: a
/// filter may answer and do nothing.
pub fn guard_markers() -> io::Result<()> {
    // SAFETY: sysconf reads a constant of the system.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel picks address space that nothing uses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), page, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let advise = |advice| {
        // SAFETY: the page was mapped above and nothing refers to its contents.
        match unsafe { libc::madvise(start, page, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let expect_readable = |expected: bool| {
        const SET_BYTES: usize = 8;
        let nothing = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads a set of signals from the page, which has none in it, or answers an error.
        let status =
            unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, start, nothing, SET_BYTES) };
        match (status == 0) == expected {
            true => Ok(()),
            false => Err(io::Error::other("answered with success and not done")),
        }
    };
    let result = advise(MADV_GUARD_INSTALL)
        .and_then(|()| expect_readable(false))
        .and_then(|()| advise(MADV_GUARD_REMOVE))
        .and_then(|()| expect_readable(true));
    // SAFETY: the page was mapped above and is not used after this.
    unsafe { libc::munmap(start, page) };
    result
}

/// The mode of seccomp that a child of this process has: 0 for none, 1 strict, 2 a filter.
pub fn seccomp() -> Option<u64> {
    status("Seccomp:")?.parse().ok()
}

/// The name of the process that traces this one, if one does.
pub fn tracer() -> Option<String> {
    let pid: u32 = status("TracerPid:")?.parse().ok()?;
    let name = || text(format!("/proc/{pid}/comm")).unwrap_or_else(|| format!("process {pid}"));
    (pid != 0).then(name)
}

/// A row of `/proc/self/status`.
fn status(row: &str) -> Option<String> {
    let rows = fs::read_to_string("/proc/self/status").ok()?;
    rows.lines().find_map(|line| line.strip_prefix(row)).map(|value| value.trim().to_owned())
}

/// A soft limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most so many bytes.
    Bytes(u64),
    /// None.
    Unlimited,
}

/// The soft limit on address space.
pub fn address_space() -> Option<Limit> {
    limit(libc::RLIMIT_AS)
}

/// The soft limit on the size of core dumps.
pub fn core_size() -> Option<Limit> {
    limit(libc::RLIMIT_CORE)
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives for the call, and the resource is one of libc's constants.
    let status = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (status == 0).then_some(match limit.rlim_cur {
        libc::RLIM_INFINITY => Limit::Unlimited,
        bytes => Limit::Bytes(bytes),
    })
}

/// The first line of a file, trimmed.
pub fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// A file that holds a number.
pub fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The choice that a file marks with brackets: `always [madvise] never`.
pub fn chosen(path: &str) -> Option<String> {
    let text = text(path)?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(choice, _)| choice.to_owned())
}

/// Takes a protection key and gives it back.
pub fn protection_keys() -> io::Result<()> {
    // SAFETY: takes numbers; nothing is sealed with the key.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0_u64, 0_u64) };
    if key < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the key was just taken.
    unsafe { libc::syscall(libc::SYS_pkey_free, key) };
    Ok(())
}

/// The memory of the machine in bytes.
pub fn memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let row = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    row.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least memory limit of this process's control groups in bytes; `None` if there is none.
pub fn cgroup_memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(limit_files).flatten().filter_map(number).min()
}

/// The files with the memory limits of a group and those around it; `line` is of `/proc/self/cgroup`,
/// `number:controllers:path`.
fn limit_files(line: &str) -> Option<Vec<PathBuf>> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    let (mount, name) = if controllers.is_empty() {
        (CGROUPS, "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (CGROUPS_V1, "memory.limit_in_bytes")
    } else {
        return None;
    };
    let path = Path::new(mount).join(group.trim_start_matches('/'));
    let groups = path.ancestors().take_while(|dir| dir.starts_with(mount));
    Some(groups.map(|dir| dir.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_limited_by_those_around_it() {
        let files = limit_files("0::/user.slice/a:b").unwrap();
        let names: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "/sys/fs/cgroup/user.slice/a:b/memory.max",
                "/sys/fs/cgroup/user.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(limit_files("5:cpu,cpuacct:/x"), None);
        let old = limit_files("4:memory:/").unwrap();
        assert_eq!(old, [PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes")]);
    }
}
