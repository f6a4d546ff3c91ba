//! The page for operators, `SERVICES.md`: its commands are run in order, in a mount namespace with an `/etc` and a `/usr/local`
//! of its own; units are verified, and paths in the other files are those of an installation.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::{LAUNCHER, Scratch, library, not_here, program, run, skip, text};

/// A fenced block of the page: what stands behind the fence, and the lines.
struct Block {
    info: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SERVICES.md")).unwrap();
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            blocks.push(Block { info: info.to_owned(), text });
        }
    }
    blocks
}

/// A directory for hard links to what was built.
fn scratch(name: &str) -> Scratch {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    Scratch(path)
}

fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ())).unwrap();
}

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What is run after the block that has a line of this beginning, to see that the block did what the page says.
const CHECKS: &[(&str, &str)] = &[
    (
        "target/release/fencepost install",
        "test -x /usr/local/bin/fencepost && test -f /usr/local/lib/fencepost/libfencepost.so",
    ),
    ("fencepost doctor", ""),
    (
        "fencepost run --exec",
        "test \"$(LD_PRELOAD=/usr/local/lib/fencepost/libfencepost.so cat /proc/self/maps | grep -c libfencepost)\" -gt 0",
    ),
    (
        "echo /usr/local/lib/fencepost/libfencepost.so > /etc/ld.so.preload",
        "cat /proc/self/maps | grep -q libfencepost
         cp /bin/sleep qemu-sleep
         /bin/sleep 100 & guarded=$!
         ./qemu-sleep 100 & exempt=$!
         /bin/sleep 0.3
         fencepost status $guarded > status-guarded
         grep -q 'mode: *harden' status-guarded && grep -q 'options:.*quarantine_mb=16' status-guarded
         if fencepost status $exempt > status-exempt; then echo 'the exempt program has a heap'; exit 1; fi
         grep -q 'heap: *none' status-exempt",
    ),
    (
        "rm /etc/ld.so.preload",
        "test ! -e /etc/ld.so.preload
         echo /nowhere/libfencepost.so > /etc/ld.so.preload
         /bin/true 2> missing && grep -q 'cannot be preloaded' missing
         echo -n > /etc/ld.so.preload; rm /etc/ld.so.preload",
    ),
    (
        "fencepost status --format prometheus",
        "grep -q \"^fencepost_process_info{pid=\\\"$guarded\\\",name=\\\"sleep\\\",mode=\\\"harden\\\"\" /tmp/fencepost.prom
         grep -q \"^fencepost_process_info{pid=\\\"$exempt\\\",name=\\\"qemu-sleep\\\",mode=\\\"none\\\"\" /tmp/fencepost.prom
         grep -q \"^fencepost_errors_total{pid=\\\"$guarded\\\",name=\\\"sleep\\\"} 0\" /tmp/fencepost.prom
         rm /tmp/fencepost.prom; kill $guarded $exempt",
    ),
    (
        "fencepost install --uninstall",
        "test -z \"$(find /usr/local -type f)\" || { find /usr/local -type f; exit 1; }",
    ),
];

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let scratch = scratch("services");
    let here = &scratch.0;
    let library = library();
    // A checkout in which everything is built already.
    for file in ["libfencepost.so", "libfencepost.a"] {
        link(&library.with_file_name(file), &here.join("target/release").join(file));
    }
    link(Path::new(LAUNCHER), &here.join("target/release/fencepost"));
    write_program(&here.join("bin/cargo"), "#!/bin/sh\ntest \"$*\" = 'build --release'\n");
    fs::create_dir_all(here.join("local")).unwrap();
    fs::create_dir_all(here.join("etc")).unwrap();
    // What the loader and a shell read there; users and hosts are nobody's business.
    for file in ["ld.so.cache", "passwd", "group", "nsswitch.conf"] {
        let _ = fs::copy(Path::new("/etc").join(file), here.join("etc").join(file));
    }
    // Debian leads from /bin by way of /etc for some programs.
    let _ = symlink("/usr/bin", here.join("etc/alternatives"));
    let mut script =
        String::from("set -e\nexport LC_ALL=C\ntrap 'kill $guarded $exempt 2> /dev/null || :' EXIT\n");
    let mut checked = 0;
    for block in blocks() {
        match block.info.as_str() {
            "sh" => {
                script.push_str(&block.text);
                for (beginning, check) in CHECKS {
                    if block.text.lines().any(|line| line.starts_with(beginning)) {
                        checked += 1;
                        script.push_str(&format!("{check}\n"));
                    }
                }
            }
            "conf file=/etc/fencepost.conf" => {
                fs::write(here.join("etc/fencepost.conf"), &block.text).unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(checked, CHECKS.len(), "a block of the page has no check, or a check no block");
    script.push_str("echo all done\n");
    let script_file = here.join("script");
    fs::write(&script_file, &script).unwrap();
    let mount = "mount --bind \"$0/etc\" /etc && mount --bind \"$0/local\" /usr/local && cd \"$0\" && \
                 exec env -i PATH=\"$0/bin:/usr/local/bin:/usr/bin:/bin\" sh \"$0/script\"";
    let Some(output) = in_a_namespace(mount, here) else {
        return not_here("mount namespaces");
    };
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("all done"), "{}\n{said}\n{script}", output.status);
}

/// Runs a shell line in a mount namespace of its own, as root there; `None` where there are none.
fn in_a_namespace(line: &str, argument: &Path) -> Option<Output> {
    let able = |flags: &str| {
        let mut command = Command::new("unshare");
        command
            .args([flags, "sh", "-c", "mount --bind /tmp /tmp"])
            .output()
            .is_ok_and(|out| out.status.success())
    };
    let flags = ["-m", "-rm"].into_iter().find(|flags| able(flags))?;
    let mut command = Command::new("unshare");
    Some(run(command.args([flags, "sh", "-c", line]).arg(argument).stdin(Stdio::null())))
}

#[test]
fn units_are_valid() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        return not_here("systemd-analyze");
    };
    assert!(version.status.success());
    let scratch = scratch("units");
    let mut units = Vec::new();
    for block in blocks().iter().filter(|block| block.info.starts_with("ini ")) {
        let path =
            block.info.strip_prefix("ini file=/etc/systemd/system/").expect("a unit says where it lies");
        let file = scratch.0.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // The launcher is not installed where the unit names it.
        let program = format!("ExecStart={LAUNCHER}");
        fs::write(&file, block.text.replace("ExecStart=/usr/local/bin/fencepost", &program)).unwrap();
        units.push(file);
    }
    assert_eq!(units.len(), 2, "a drop-in and a unit");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(scratch.0.join("example.service"));
    let output = run(command.env("SYSTEMD_UNIT_PATH", format!("{}:", scratch.0.display())));
    let said = text(&output.stderr);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("example")).collect();
    assert!(output.status.success() && about_ours.is_empty(), "{said}");
    // And it does find what is wrong.
    fs::write(&units[0], "[Service]\nEnvironmnt=LD_PRELOAD=x\n").unwrap();
    let said = text(&run(&mut command).stderr);
    assert!(said.contains("Environmnt"), "{said}");
}

/// Whatever a file of the page preloads lies where an installation puts it.
#[test]
fn paths_are_those_of_an_installation() {
    let mut places = 0;
    for block in blocks() {
        for line in block.text.lines() {
            for word in line.split(|c: char| c.is_whitespace() || c == '=' || c == '"') {
                if word.ends_with("libfencepost.so") {
                    places += 1;
                    let known =
                        ["/usr/local/lib/fencepost/libfencepost.so", "/usr/lib/fencepost/libfencepost.so"];
                    assert!(known.contains(&word), "{word} in {}", block.text);
                }
            }
        }
    }
    assert!(places >= 5, "{places}");
    for block in blocks().iter().filter(|block| block.info == "dockerfile") {
        let from = block.text.lines().filter(|line| line.starts_with("FROM ")).count();
        assert!(from == 2 && block.text.contains("COPY --from="), "{}", block.text);
    }
}

/// The program of the tests, under the library, waiting after it has done its work.
struct Waiting(Child);

impl Waiting {
    fn start(program: &Path, options: &str) -> Self {
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", library()).env("FENCEPOST_OPTIONS", options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{options}");
        Self(child)
    }

    fn status(&self, flags: &[&str]) -> Output {
        run(Command::new(LAUNCHER).arg("status").args(flags).arg(self.0.id().to_string()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts from outside are those of the process, in each mode; errors that it went on after are among them.
#[test]
fn status_tells_what_the_process_counts() {
    let Some(program) = program("service.c") else { return };
    // The program allocates 1,000 objects of 40 bytes and 10 of two pages.
    for (options, mode, guarded) in [
        ("", "harden", 10..=12),
        ("mode=patrol:sample_rate=0", "patrol", 10..=400),
        ("mode=hunt", "hunt", 1010..=1030),
    ] {
        let process = Waiting::start(&program, options);
        let output = process.status(&[]);
        let said = text(&output.stdout);
        assert!(output.status.success(), "{options}: {said}{}", text(&output.stderr));
        let line = |name: &str| {
            let line = said
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{name} in {said}"));
            line.split_once(' ').unwrap().1.trim().to_owned()
        };
        assert_eq!(line("mode:"), mode);
        assert_eq!(line("version:"), env!("CARGO_PKG_VERSION"));
        assert_eq!(line("errors:"), "0, and 0 suppressed");
        let metrics = text(&process.status(&["--format", "prometheus"]).stdout);
        let count = |route: &str| -> u64 {
            let end = format!("route=\"{route}\"}} ");
            let line =
                metrics.lines().find_map(|line| line.split_once(&end)).unwrap_or_else(|| panic!("{metrics}"));
            line.1.parse().unwrap()
        };
        let (in_guards, in_slabs) = (count("guarded"), count("slab"));
        assert!(guarded.contains(&in_guards), "{options}: {metrics}");
        assert!((1010..1040).contains(&(in_guards + in_slabs)), "{options}: {metrics}");
    }
    let process = Waiting::start(&program, "on_error=continue:log_path=/dev/null");
    let mut pipe = process.0.stdin.as_ref().expect("it was started with a pipe");
    std::io::Write::write_all(&mut pipe, b"x").unwrap();
    for _ in 0..100 {
        let said = text(&process.status(&[]).stdout);
        if said.contains("errors:      1, and 0 suppressed") {
            assert!(said.contains("log_path=/dev/null:on_error=continue"), "{said}");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the error was not counted: {}", text(&process.status(&[]).stdout));
}

/// What an exempt program does it does with the C library's allocator, and the kernel has the dispositions that it set.
#[test]
fn an_exempt_program_is_the_c_librarys() {
    let Some(program) = program("service.c") else { return };
    let name = program.file_name().unwrap().to_str().unwrap();
    let whole = program.canonicalize().unwrap();
    for pattern in
        [name.to_owned(), "other|serv*".to_owned(), whole.display().to_string(), "*/service-c".to_owned()]
    {
        let process = Waiting::start(&program, &format!("mode=hunt:exempt={pattern}"));
        let output = process.status(&[]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{pattern}: {said}");
        assert!(said.contains("heap:        none"), "{said}");
        let maps = fs::read_to_string(format!("/proc/{}/maps", process.0.id())).unwrap();
        assert!(maps.contains("libfencepost.so") && maps.contains("[heap]"), "{maps}");
        let caught = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
        let mask = caught.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        assert_eq!(mask & 1 << (libc::SIGSEGV - 1), 0, "{pattern}: the fault signals are the program's");
        assert_ne!(mask & 1 << (libc::SIGUSR1 - 1), 0, "{pattern}: what the program set is set");
    }
    for pattern in ["services", "ervice-c", "/service-c", "Service*", "||"] {
        let process = Waiting::start(&program, &format!("exempt={pattern}"));
        assert!(process.status(&[]).status.success(), "{pattern} fits another program");
    }
}

/// Programs of all sorts do the same under the library when it stands aside as without it.
#[test]
fn exempt_programs_run_as_without() {
    let script = "import threading, subprocess\n\
                  def work():\n    x = [str(i) * 20 for i in range(20000)]\n    return len(x)\n\
                  ts = [threading.Thread(target=work) for _ in range(4)]\n[t.start() for t in ts]; [t.join() for t in ts]\n\
                  print(subprocess.run(['/bin/echo', 'child'], capture_output=True).stdout, sum(range(1000)))";
    let mut rows: Vec<(&str, Vec<&str>)> =
        vec![("/bin/ls", vec!["/"]), ("/bin/sh", vec!["-c", "echo $((6 * 7)) | cat; exit 3"])];
    match Command::new("python3").arg("--version").output() {
        Ok(_) => rows.push(("python3", vec!["-c", script])),
        Err(_) => skip("there is no python3"),
    }
    for (name, arguments) in rows {
        let plain = run(Command::new(name).args(&arguments));
        let mut command = Command::new(name);
        command.args(&arguments).env("LD_PRELOAD", library()).env("PYTHONMALLOC", "malloc");
        let aside = run(command.env("FENCEPOST_OPTIONS", "mode=hunt:exempt=*"));
        assert_eq!(text(&aside.stderr), text(&plain.stderr), "{name}");
        assert_eq!((aside.status, text(&aside.stdout)), (plain.status, text(&plain.stdout)), "{name}");
    }
    let Some(bugs) = support::bugs("-O0") else { return };
    // C++, and a bug: nobody reports it.
    let mut command = Command::new("prlimit");
    command.arg("--core=0:").arg(bugs).arg("alloc-dealloc-mismatch").env("LD_PRELOAD", library());
    let said = text(&run(command.env("FENCEPOST_OPTIONS", "exempt=bugs*")).stderr);
    assert!(!said.contains("fencepost"), "{said}");
}

/// Without the kernel's support naming is asked for once, and never after the start.
#[test]
fn mappings_are_named_at_start_alone() {
    let trace = |options: &str| {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-e", "trace=prctl,exit_group", "-E"])
            .arg(format!("LD_PRELOAD={}", library().display()));
        command.arg("-E").arg(format!("FENCEPOST_OPTIONS={options}")).arg("/bin/ls");
        command.output().ok().filter(|output| output.status.success()).map(|output| text(&output.stderr))
    };
    let Some(said) = trace("") else { return not_here("strace") };
    let calls = |said: &str| said.matches("PR_SET_VMA,").count();
    let named = !said.lines().any(|line| line.contains("PR_SET_VMA") && line.contains("EINVAL"));
    assert!(if named { calls(&said) > 1 } else { calls(&said) == 1 }, "{said}");
    assert_eq!(calls(&trace("names=0").unwrap_or_default()), 0);
}
