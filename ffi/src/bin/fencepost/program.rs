//! What a program file is, as far as preloading goes.
//!
//! The dynamic loader preloads; where it does not run, or runs with raised privileges, the library is
//! silently left out. Both can be seen in the file before it is started, so that the user hears of it.
//! Everything here is advice: what cannot be read or understood gives none.

#![allow(unsafe_code)]

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Scripts may name scripts as interpreters; the kernel follows about this many.
const MAX_SCRIPTS: usize = 5;
/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The longest `#!` line the kernel reads.
const SCRIPT_LINE: usize = 256;
/// `PT_INTERP` of elf.h: the segment that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// The file that running `name` executes, found as `execvp` finds it.
pub fn resolve(name: &OsStr) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let candidates: Vec<PathBuf> = env::split_paths(&path)
        .map(|dir| if dir.as_os_str().is_empty() { Path::new(".").join(name) } else { dir.join(name) })
        .filter(|candidate| candidate.is_file())
        .collect();
    let runs = |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.mode() & 0o111 != 0);
    candidates.iter().find(runs).or(candidates.first()).cloned()
}

/// Why the loader will not preload into the program, or `None` if it will as far as can be seen.
pub fn obstacle(path: &Path) -> Option<String> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_SCRIPTS {
        let file = File::open(&path).ok()?;
        match script_interpreter(&file) {
            // The kernel ignores the privilege bits of scripts.
            Some(interpreter) => path = interpreter,
            None => {
                return raised(&path).map(str::to_owned).or_else(|| unpreloadable(&path, &file));
            }
        }
    }
    None
}

/// Bytes of a program that are searched for names of others, and how many are told of.
const MOST_SEARCHED: u64 = 64 << 20;
const MOST_CHILDREN: usize = 16;

/// Other programs that are named in the file, a program or a script, and that would run without the library: with why.
pub fn children(path: &Path) -> Vec<(PathBuf, String)> {
    let searched = fs::metadata(path).is_ok_and(|file| file.len() <= MOST_SEARCHED);
    let bytes = if searched { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    let is_of_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_.+-".contains(byte);
    for word in bytes.split(|byte| !is_of_path(byte)) {
        let child = Path::new(OsStr::from_bytes(word));
        let may_be = word.len() > 2 && word.len() < 256 && word.starts_with(b"/");
        if !may_be || child == path || found.iter().any(|(known, _)| known == child) {
            continue;
        }
        let runs = fs::metadata(child).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0);
        // Libraries have no loader of their own either.
        let is_library =
            child.file_name().is_some_and(|name| name.as_bytes().windows(3).any(|part| part == b".so"));
        if let (true, false, Some(obstacle)) = (runs, is_library, obstacle(child)) {
            found.push((child.to_path_buf(), obstacle));
            if found.len() == MOST_CHILDREN {
                break;
            }
        }
    }
    found
}

/// What the kernel starts to run the file: the interpreter of a script, the loader of an ELF program.
pub fn interpreter(path: &Path) -> Option<PathBuf> {
    let file = File::open(path).ok()?;
    script_interpreter(&file).or_else(|| Elf::read(&file)?.loader)
}

/// Why the program runs with raised privileges (`AT_SECURE`), where the loader takes no paths from
/// `LD_PRELOAD` and fencepost no options.
fn raised(path: &Path) -> Option<&'static str> {
    let file = fs::metadata(path).ok()?;
    // SAFETY: getuid and getgid read a number of this process and cannot fail.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    if file.mode() & libc::S_ISUID != 0 && file.uid() != user {
        return Some("is setuid, and the loader ignores LD_PRELOAD there: it runs without fencepost");
    }
    let setgid = libc::S_ISGID | libc::S_IXGRP;
    if file.mode() & setgid == setgid && file.gid() != group {
        return Some("is setgid, and the loader ignores LD_PRELOAD there: it runs without fencepost");
    }
    if user != 0 && has_capabilities(path) {
        return Some(
            "has file capabilities, and the loader ignores LD_PRELOAD there: it runs without fencepost",
        );
    }
    None
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both names are NUL-terminated and live for the call; a null buffer of size 0 asks for
    // the length only.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) };
    length > 0
}

/// Why the dynamic loader does not run for this ELF file, or is not the library's.
fn unpreloadable(path: &Path, file: &File) -> Option<String> {
    let elf = Elf::read(file)?;
    let own = File::open("/proc/self/exe").ok().and_then(|file| Elf::read(&file));
    if own.is_some_and(|own| own.machine != elf.machine) {
        return Some(
            "is made for another machine or word size, where the library cannot be loaded: \
             it runs without fencepost"
                .to_owned(),
        );
    }
    let Some(loader) = elf.loader else {
        // The loader itself names no loader, and preloads when it is run as a program.
        let name = path.file_name().unwrap_or_default().as_bytes();
        return (!name.starts_with(b"ld-") && !name.starts_with(b"ld.so")).then(|| {
            "is statically linked, so no loader reads LD_PRELOAD: it runs without fencepost".to_owned()
        });
    };
    let musl = loader.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-musl"));
    (musl && cfg!(target_env = "gnu"))
        .then(|| "is linked with musl, and the library with glibc: it will not load".to_owned())
}

/// The program on a script's `#!` line.
fn script_interpreter(file: &File) -> Option<PathBuf> {
    script_of(file).map(|(interpreter, _)| interpreter)
}

/// What a script's `#!` line names: the program, and the first word of its argument, if it has one.
pub fn script(path: &Path) -> Option<(PathBuf, Option<OsString>)> {
    script_of(&File::open(path).ok()?)
}

fn script_of(file: &File) -> Option<(PathBuf, Option<OsString>)> {
    let mut buffer = [0; SCRIPT_LINE];
    let length = file.read_at(&mut buffer, 0).ok()?;
    let line = buffer.get(..length)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let name = line.get(..end).filter(|name| !name.is_empty())?;
    let mut rest = line.get(end..)?.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let argument = rest.next().map(|word| OsStr::from_bytes(word).to_os_string());
    Some((PathBuf::from(OsStr::from_bytes(name)), argument))
}

/// What matters of an ELF file's header.
struct Elf {
    /// Word size, byte order and machine.
    machine: [u8; 4],
    /// The dynamic loader it asks for.
    loader: Option<PathBuf>,
}

impl Elf {
    /// Reads the header; `None` if this is no ELF file or a damaged one. Of a word size or byte order
    /// other than this machine's only `machine` is read.
    fn read(file: &File) -> Option<Self> {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).ok()?;
        if !header.starts_with(b"\x7fELF") {
            return None;
        }
        let machine = [header[4], header[5], header[18], header[19]];
        const NATIVE: [u8; 2] = [2, if cfg!(target_endian = "little") { 1 } else { 2 }];
        let loader = if machine.starts_with(&NATIVE) { Self::loader(file, &header)? } else { None };
        Some(Self { machine, loader })
    }

    /// The contents of the `PT_INTERP` segment. The outer `None` is a damaged file.
    fn loader(file: &File, header: &[u8; 64]) -> Option<Option<PathBuf>> {
        let table = u64_at(header, 32)?;
        let (size, count) = (u16_at(header, 54)?, u16_at(header, 56)?);
        for index in 0..count {
            let mut entry = [0; 56];
            let at = table.checked_add(u64::from(index).checked_mul(u64::from(size))?)?;
            file.read_exact_at(&mut entry, at).ok()?;
            if u32_at(&entry, 0)? == PT_INTERP {
                let length = usize::try_from(u64_at(&entry, 32)?).ok()?;
                let mut name = vec![0; length.min(libc::PATH_MAX as usize)];
                file.read_exact_at(&mut name, u64_at(&entry, 8)?).ok()?;
                name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                return Some(Some(PathBuf::from(OsString::from_vec(name))));
            }
        }
        Some(None)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
