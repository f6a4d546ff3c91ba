//! An installation from outside: what it holds, that it works from where it lies, and that nothing is left of it. And the
//! first minutes of somebody new, who installs the package, runs a program with a bug, and reads the line.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{LAUNCHER, Scratch, library, not_here, run, skip, text};

/// Every file below a directory, relative to it.
fn tree(root: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

/// Runs a program with nothing in its environment but where programs are.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
    command
}

/// `fencepost install` with these arguments, of the launcher and the library that were built.
fn install(arguments: &[&str]) -> Output {
    let mut command = Command::new(LAUNCHER);
    let output = run(command.arg("install").args(arguments).env("FENCEPOST_LIB", library()));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output
}

const PROGRAM: &str = "\
#include <stdlib.h>
__attribute__((noinline)) static void fill(char *place, int count)
{
    for (int i = 0; i <= count; i++)
        place[i] = 'x';                                /* LINE fault */
}
int main(int argc, char **argv)
{
    char *place = malloc(16);                          /* LINE allocation */
    fill(place, argc > 1 ? 4 : 16);
    int sum = place[3];
    free(place);
    return sum == 0;
}
";

fn line(mark: &str) -> usize {
    PROGRAM.lines().position(|line| line.contains(&format!("LINE {mark}"))).unwrap() + 1
}

/// A bug one byte behind an object, with lines, without, and optimised.
fn newcomer(launcher: &Path, scratch: &Path) {
    if Command::new("gcc").arg("--version").output().is_err() {
        skip("there is no gcc");
        return;
    }
    let source = scratch.join("prog.c");
    fs::write(&source, PROGRAM).unwrap();
    for flags in [&["-g"][..], &[], &["-O2"], &["-g", "-O2"]] {
        let program = scratch.join("prog");
        let mut gcc = Command::new("gcc");
        assert!(run(gcc.args(flags).arg(&source).arg("-o").arg(&program)).status.success());
        let right = run(clean(launcher).args(["hunt", "--"]).arg(&program).arg("right"));
        assert!(right.status.success() && right.stderr.is_empty(), "{flags:?}: {}", text(&right.stderr));
        let output = run(clean(launcher).args(["hunt", "--"]).arg(&program));
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{flags:?}");
        assert!(said.contains("ERROR: fencepost: heap-buffer-overflow on address"), "{flags:?}: {said}");
        assert!(said.contains("is located 0 bytes after 16-byte region"), "{flags:?}: {said}");
        let summary =
            said.lines().find(|line| line.starts_with("SUMMARY: ")).unwrap_or_else(|| panic!("{said}"));
        // The first frame of the fault, and of the allocation.
        let mut tops = said.lines().filter(|line| line.trim_start().starts_with("#0 "));
        let (fault, allocation) = (tops.next().unwrap(), tops.next().unwrap());
        assert!(fault.contains(" in fill"), "{flags:?}: {said}");
        assert!(said.contains(" in main"), "{flags:?}: {said}");
        if flags.contains(&"-g") {
            assert!(summary.contains(&format!("prog.c:{}", line("fault"))), "{flags:?}: {summary}");
            assert!(fault.contains(&format!("prog.c:{}", line("fault"))), "{flags:?}: {fault}");
            let at = format!("prog.c:{}", line("allocation"));
            assert!(allocation.contains(&at) && allocation.contains(" in main"), "{flags:?}: {allocation}");
        }
    }
}

#[test]
fn an_installation_works_and_goes_without_a_trace() {
    let scratch = Scratch::new("installation");
    let root = scratch.0.join("root");
    let destination = root.to_str().unwrap();
    let place = ["--prefix", "/usr/local", "--destdir", destination];
    install(&place);
    let prefix = root.join("usr/local");
    let files = tree(&prefix);
    for file in [
        "bin/fencepost",
        "include/fencepost.h",
        "lib/fencepost/files",
        "lib/fencepost/libfencepost.a",
        "lib/fencepost/libfencepost.so",
        "lib/fencepost/libfencepost.so-gdb.py",
        "lib/pkgconfig/fencepost.pc",
        "share/bash-completion/completions/fencepost",
        "share/doc/fencepost/fencepost.conf.example",
        "share/doc/fencepost/ffi/SERVICES.md",
        "share/man/man1/fencepost.1",
        "share/man/man1/fencepost-hunt.1",
        "share/man/man5/fencepost.conf.5",
        "share/zsh/site-functions/_fencepost",
    ] {
        assert!(files.contains(file), "{file} is missing in {files:#?}");
    }
    // Nothing is written that the list does not name.
    let listed = fs::read_to_string(prefix.join("lib/fencepost/files")).unwrap();
    let listed: BTreeSet<String> =
        listed.lines().filter(|entry| !entry.ends_with('/')).map(str::to_owned).collect();
    assert_eq!(files, listed);
    let mode = |file: &str| fs::metadata(prefix.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/fencepost"), mode("lib/fencepost/libfencepost.so")), (0o755, 0o644));
    newcomer(&prefix.join("bin/fencepost"), &scratch.0);
    links_with_what_pkg_config_says(&prefix, &scratch.0);
    pages_are_read(&prefix);

    // Again over it, as another version would, and away.
    install(&place);
    let mut command = clean(&prefix.join("bin/fencepost"));
    let output = run(command.args(["install", "--uninstall"]).args(place));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(tree(&root), BTreeSet::new());
    // Neither files nor directories, but for the prefix itself.
    assert!(fs::read_dir(&prefix).unwrap().next().is_none());
    let mut command = Command::new(LAUNCHER);
    let output = run(command.args(["install", "--uninstall"]).args(place));
    assert_eq!(output.status.code(), Some(125), "there is nothing to remove");
}

fn links_with_what_pkg_config_says(prefix: &Path, scratch: &Path) {
    let mut command = Command::new("pkg-config");
    command.args(["--cflags", "--libs", "fencepost"]);
    let Ok(output) = command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).output() else {
        return skip("there is no pkg-config");
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let flags = text(&output.stdout);
    let source = scratch.join("linked.c");
    fs::write(&source, "#include <fencepost.h>\n#include <stdlib.h>\nint main(void) { char *p = malloc(3); void *start; size_t size;\n\
        return !(fencepost_bounds(p + 1, &start, &size) == 1 && start == p && size == 3); }\n").unwrap();
    for more in [&[][..], &["-static"]] {
        let program = scratch.join("linked");
        let mut gcc = Command::new("gcc");
        gcc.arg(&source).args(flags.split_whitespace()).args(more).arg("-o").arg(&program);
        let output = run(&mut gcc);
        if !more.is_empty() && !output.status.success() {
            // A C library to be linked statically is not everywhere, and glibc's has symbols of its own.
            not_here(&format!("static linking: {}", text(&output.stderr).lines().next().unwrap_or_default()));
            continue;
        }
        assert!(output.status.success(), "{gcc:?}: {}", text(&output.stderr));
        assert!(run(&mut clean(&program)).status.success(), "{more:?}");
    }
}

/// The pages have no macro that `man` does not know.
fn pages_are_read(prefix: &Path) {
    for page in ["man1/fencepost.1", "man1/fencepost-run.1", "man5/fencepost.conf.5"] {
        let mut command = Command::new("man");
        command.args(["--warnings", "-l"]).arg(prefix.join("share/man").join(page)).env("MANWIDTH", "100");
        let Ok(output) = command.env("LC_ALL", "C.UTF-8").output() else { return skip("there is no man") };
        let said = text(&output.stdout);
        if said.contains("has been minimized") || !output.status.success() && said.is_empty() {
            return not_here("man shows no pages here");
        }
        assert!(output.status.success() && output.stderr.is_empty(), "{page}: {}", text(&output.stderr));
        assert!(said.contains("fencepost") && said.contains("NAME"), "{page}: {said}");
    }
}

#[test]
fn a_cargo_installed_launcher_is_left_where_it_lies() {
    let scratch = Scratch::new("own-prefix");
    let bin = scratch.0.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let launcher = bin.join("fencepost");
    fs::copy(LAUNCHER, &launcher).unwrap();
    let prefix = scratch.0.to_str().unwrap();
    let output = run(clean(&launcher).args(["install", "--prefix", prefix, "--lib"]).arg(library()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    // It finds the library that it installed.
    let output = run(clean(&launcher).args(["run", "-o", "help=1", "--", "/bin/true"]));
    assert!(output.status.success() && text(&output.stderr).contains("unmap_threshold=0"));
    let output = run(clean(&launcher).args(["install", "--uninstall", "--prefix", prefix]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(tree(&scratch.0), BTreeSet::new());
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What the launcher packs itself.
#[test]
fn the_launchers_package_works_and_goes_without_a_trace() {
    if !has("dpkg") || !has("dpkg-deb") {
        return skip("there is no dpkg");
    }
    let scratch = Scratch::new("deb");
    let package = scratch.0.join("fencepost.deb");
    let strip = if has("strip") { &["--strip"][..] } else { &[] };
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SERVICES.md")).unwrap();
    assert!(page.contains("\ntarget/release/fencepost install --strip --deb target/fencepost.deb\n"));
    install(&[strip, &["--deb", package.to_str().unwrap()]].concat());
    let mut command = Command::new("dpkg-deb");
    let control = text(&run(command.arg("--field").arg(&package)).stdout);
    for line in ["Package: fencepost", &format!("Version: {}", env!("CARGO_PKG_VERSION"))] {
        assert!(control.lines().any(|other| other == line), "{control}");
    }
    works_and_goes_without_a_trace(&package, &scratch);
}

/// The same of `cargo deb`.
#[test]
fn the_package_of_cargo_deb_works_and_goes_without_a_trace() {
    if !has("cargo-deb") || !has("dpkg") || !has("strip") {
        return not_here("packaging by cargo-deb: that, dpkg and strip are needed");
    }
    let scratch = Scratch::new("package");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let stage = workspace.join("target/package");
    let _ = fs::remove_dir_all(&stage);
    install(&["--strip", "--prefix", "/usr", "--destdir", stage.to_str().unwrap()]);
    let package = scratch.0.join("fencepost.deb");
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace).args([
        "deb",
        "-p",
        "fencepost-ffi",
        "--no-build",
        "--no-strip",
        "--fast",
        "-o",
    ]);
    let output = run(command.arg(&package));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let _ = fs::remove_dir_all(&stage);
    works_and_goes_without_a_trace(&package, &scratch);
}

/// `dpkg` into a root of its own, the same first minutes, and away again.
fn works_and_goes_without_a_trace(package: &Path, scratch: &Scratch) {
    let root = scratch.0.join("root");
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    // No other package is in this root.
    let dpkg = |arguments: &[&str], last: &Path| {
        let mut command = Command::new("dpkg");
        command
            .arg(format!("--root={}", root.display()))
            .args(["--force-depends", "--log=/dev/null"])
            .args(arguments)
            .arg(last);
        run(&mut command)
    };
    let output = dpkg(&["--force-not-root", "--install"], package);
    if !output.status.success() {
        let said = text(&output.stderr);
        assert!(
            said.contains("ermission") || said.contains("superuser") || said.contains("chroot"),
            "{said}"
        );
        return not_here("installing a package into another root");
    }
    let usr: PathBuf = root.join("usr");
    let files = tree(&usr);
    for file in [
        "bin/fencepost",
        "lib/fencepost/libfencepost.so",
        "share/gdb/auto-load/usr/lib/fencepost/libfencepost.so-gdb.py",
        "share/doc/fencepost/copyright",
        "share/man/man5/fencepost.conf.5",
    ] {
        let packed = format!("{file}.gz");
        assert!(files.contains(file) || files.contains(&packed), "{file} is missing in {files:#?}");
    }
    assert!(!files.contains("lib/fencepost/files"), "dpkg keeps its own list");
    newcomer(&usr.join("bin/fencepost"), &scratch.0);
    let output = dpkg(&["--purge"], Path::new("fencepost"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!usr.exists() || tree(&usr).is_empty(), "{:#?}", tree(&usr));
}

/// A plain release build's library needs the C library alone.
#[test]
fn the_library_is_without_std() {
    let mut readelf = Command::new("readelf");
    let Ok(output) = readelf.arg("-d").arg(library()).output() else { return skip("there is no readelf") };
    let dynamic = text(&output.stdout);
    let needed: Vec<&str> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(matches!(needed.as_slice(), [one] if one.contains("[libc.so.6]")), "{needed:?}");
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).unwrap();
    assert!(manifest.contains("default-members = [\".\", \"ffi\"]"), "what `cargo build` builds");
}
