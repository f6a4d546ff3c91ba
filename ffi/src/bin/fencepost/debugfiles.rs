//! Where the debug information of a module is.
//!
//! In the file itself, or apart from it: by build id below `/usr/lib/debug/.build-id` and in the caches that
//! debuginfod clients leave, or by the name in `.gnu_debuglink`. Nothing is fetched. A file of another
//! build than the one that ran is worse than none, so build ids, or the link's checksum, have to agree.

use object::read::ReadCache;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where distributions put what they strip from programs.
const GLOBAL: &str = "/usr/lib/debug";
/// The page size that offsets into modules are rounded by.
const PAGE: u64 = fencepost_core::addr::PAGE_SIZE as u64;

/// The files that describe a module.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The file with the debug information, or the module's own symbols.
    pub file: PathBuf,
    /// What several debug files share, if this one refers to it.
    pub shared: Option<PathBuf>,
    /// The address in the file of what the module has mapped first.
    pub base: u64,
}

/// What of a file matters here.
struct Facts {
    build_id: Option<Vec<u8>>,
    has_lines: bool,
    base: Option<u64>,
    link: Option<(Vec<u8>, u32)>,
    shared: Option<(Vec<u8>, Vec<u8>)>,
}

/// Finds what describes the module at `path` with this build id, in hexadecimal; `None` if all there is
/// is of another build.
pub fn find(path: &Path, build_id: Option<&str>) -> Option<Found> {
    let wanted = build_id.and_then(bytes_of);
    let agrees = |facts: &Facts| match (&wanted, &facts.build_id) {
        (Some(wanted), Some(id)) => wanted == id,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let module = facts(path).filter(&agrees);
    let own = |module: &Facts| Found {
        file: path.to_path_buf(),
        shared: shared(path, module),
        base: module.base.unwrap_or(0),
    };
    if let Some(module) = module.as_ref().filter(|module| module.has_lines) {
        return Some(own(module));
    }
    let id = wanted.as_ref().or(module.as_ref().and_then(|module| module.build_id.as_ref()));
    for candidate in id.into_iter().flat_map(|id| by_build_id(id)) {
        let known = facts(&candidate).filter(|facts| facts.has_lines && facts.build_id.as_ref() == id);
        if let Some(known) = known {
            let base = module.as_ref().and_then(|module| module.base).or(known.base).unwrap_or(0);
            return Some(Found { shared: shared(&candidate, &known), file: candidate, base });
        }
    }
    let module = module?;
    if let Some((name, checksum)) = &module.link {
        for candidate in by_link(path, name) {
            let Some(known) = facts(&candidate).filter(|facts| facts.has_lines) else { continue };
            let same = match (&known.build_id, &module.build_id) {
                (Some(one), Some(other)) => one == other,
                _ => std::fs::read(&candidate).is_ok_and(|bytes| crc32(&bytes) == *checksum),
            };
            if same {
                let base = module.base.unwrap_or(0);
                return Some(Found { shared: shared(&candidate, &known), file: candidate, base });
            }
        }
    }
    Some(own(&module))
}

fn facts(path: &Path) -> Option<Facts> {
    let cache = ReadCache::new(open(path)?);
    let file = object::File::parse(&cache).ok()?;
    let lines = [".debug_line", ".zdebug_line", ".debug_info"];
    Some(Facts {
        build_id: file.build_id().ok().flatten().map(<[u8]>::to_vec),
        has_lines: lines.iter().any(|name| file.section_by_name(name).is_some_and(|it| it.size() > 0)),
        base: file.segments().map(|segment| segment.address() / PAGE * PAGE).min(),
        link: file.gnu_debuglink().ok().flatten().map(|(name, checksum)| (name.to_vec(), checksum)),
        shared: file.gnu_debugaltlink().ok().flatten().map(|(name, id)| (name.to_vec(), id.to_vec())),
    })
}

/// Where the symbols of a file end that have a size, by where they start.
pub fn ends(path: &Path) -> Option<HashMap<u64, u64>> {
    let cache = ReadCache::new(open(path)?);
    let file = object::File::parse(&cache).ok()?;
    let mut ends = HashMap::new();
    for symbol in file.symbols().chain(file.dynamic_symbols()).filter(|symbol| symbol.size() != 0) {
        let end = ends.entry(symbol.address()).or_insert(0);
        *end = symbol.address().saturating_add(symbol.size()).max(*end);
    }
    Some(ends)
}

/// Opens a regular file. The names come from logs and from other files: a FIFO would be waited for without end.
fn open(path: &Path) -> Option<File> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    file.metadata().is_ok_and(|data| data.is_file()).then_some(file)
}

/// The file that `facts` of the debug file at `path` refer to.
fn shared(path: &Path, facts: &Facts) -> Option<PathBuf> {
    let (name, id) = facts.shared.as_ref()?;
    let beside = path.parent()?.join(OsStr::from_bytes(name));
    let agrees = |path: &PathBuf| self::facts(path).is_some_and(|it| it.build_id.as_ref() == Some(id));
    std::iter::once(beside).chain(by_build_id(id)).find(agrees)
}

/// Files that are named by a build id.
fn by_build_id(id: &[u8]) -> Vec<PathBuf> {
    let Some((first, rest)) = id.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Vec::new();
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut candidates =
        vec![Path::new(GLOBAL).join(".build-id").join(hex(&[*first])).join(format!("{}.debug", hex(rest)))];
    let home = env::var_os("HOME").map(PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(home.as_ref()?.join(".cache")));
    let caches = [
        env::var_os("DEBUGINFOD_CACHE_PATH").filter(|path| !path.is_empty()).map(PathBuf::from),
        cache.map(|cache| cache.join("debuginfod_client")),
        home.map(|home| home.join(".debuginfod_client_cache")),
    ];
    let folder = hex(id);
    candidates.extend(caches.into_iter().flatten().map(|cache| cache.join(&folder).join("debuginfo")));
    candidates
}

/// Where a file named by `.gnu_debuglink` may be.
fn by_link(path: &Path, name: &[u8]) -> Vec<PathBuf> {
    let name = OsStr::from_bytes(name);
    let Some(directory) = path.parent() else { return Vec::new() };
    let below = directory.strip_prefix("/").unwrap_or(directory);
    let candidates =
        [directory.join(name), directory.join(".debug").join(name), Path::new(GLOBAL).join(below).join(name)];
    candidates.into_iter().filter(|candidate| candidate != path).collect()
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let pairs = digits.chunks_exact(2);
    if digits.is_empty() || !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The checksum of `.gnu_debuglink`.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_links() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn build_ids_name_files() {
        let names = by_build_id(&[0xab, 0xcd, 0xef]);
        assert_eq!(names[0], Path::new("/usr/lib/debug/.build-id/ab/cdef.debug"));
        assert!(names.iter().skip(1).all(|name| name.ends_with("abcdef/debuginfo")));
        assert!(by_build_id(&[]).is_empty() && by_build_id(&[1]).is_empty());
        assert_eq!(bytes_of("0aff"), Some(vec![10, 255]));
        assert!(bytes_of("0af").is_none() && bytes_of("zz").is_none() && bytes_of("").is_none());
    }

    #[test]
    fn a_module_of_another_build_is_none() {
        let own = env::current_exe().unwrap();
        assert!(find(&own, None).is_some());
        assert_eq!(find(&own, Some("00112233")), None);
        assert_eq!(find(Path::new("/nonexistent"), None), None);
    }
}
