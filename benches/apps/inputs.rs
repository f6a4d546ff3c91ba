//! The programs' inputs, made here with fixed seeds and never downloaded.
//!
//! Everything is written in a stream, since the driver's own memory would count into its children's peaks.

use crate::programs::{Place, calm};
use fencepost_benches::heap::program;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Raised when an input changes, so that an old directory is not taken for a new one.
const EDITION: &str = "3";

/// Makes what is not there yet.
pub fn prepare(place: &Place) -> io::Result<()> {
    let stamp = place.file("edition");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == EDITION) {
        return Ok(());
    }
    if place.inputs.exists() {
        fs::remove_dir_all(&place.inputs)?;
    }
    fs::create_dir_all(&place.inputs)?;
    fs::write(place.file("work.py"), include_str!("scripts/work.py"))?;
    fs::write(place.file("work.pl"), include_str!("scripts/work.pl"))?;
    fs::write(place.file("work.lua"), include_str!("scripts/work.lua"))?;
    fs::write(place.file("threads.pl"), include_str!("scripts/threads.pl"))?;
    fs::write(place.file("threads.js"), include_str!("scripts/threads.js"))?;
    fs::write(place.file("objects.c"), include_str!("scripts/objects.c"))?;
    stream(&place.file("sqlite.sql"), |out| sql(out, place.scale))?;
    stream(&place.file("big.xml"), |out| xml(out, place.scale))?;
    stream(&place.file("people.json"), |out| json(out, place.scale))?;
    stream(&place.file("pages.ps"), |out| postscript(out, place.scale))?;
    stream(&place.file("large.c"), |out| c(out, 2 * place.scale))?;
    stream(&place.file("small.c"), |out| c(out, 6))?;
    tree(&place.file("tree"), place.scale)?;
    repository(place)?;
    compile(place)?;
    fs::write(stamp, EDITION)
}

fn stream(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write(&mut out)?;
    out.flush()
}

/// Steele, Lea and Flood's SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn word(&mut self) -> String {
        let length = 2 + self.below(9);
        (0..length).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    fn sentence(&mut self, most: u64) -> String {
        let count = 1 + self.below(most);
        (0..count).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }
}

fn sql(out: &mut dyn Write, scale: u64) -> io::Result<()> {
    let mut rng = Rng(1);
    writeln!(out, "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, kind INT, price REAL, note TEXT);")?;
    writeln!(out, "CREATE TABLE sale(id INTEGER PRIMARY KEY, item INT, count INT, day TEXT);\nBEGIN;")?;
    let items = 250 * scale;
    for id in 1..=items {
        let (name, kind, price) = (rng.word(), rng.below(90), rng.below(100_000) as f64 / 100.0);
        writeln!(out, "INSERT INTO item VALUES({id},'{name}',{kind},{price},'{}');", rng.sentence(14))?;
    }
    writeln!(
        out,
        "COMMIT;\nCREATE INDEX by_name ON item(name);\nCREATE INDEX by_kind ON item(kind, price);"
    )?;
    writeln!(
        out,
        "INSERT INTO sale SELECT value, 1 + (value * 7919) % {items}, value % 9, date('2020-01-01', '+' || (value % 900) || ' days') \
         FROM generate_series(1, {});",
        900 * scale
    )?;
    writeln!(out, "CREATE INDEX by_item ON sale(item);")?;
    for round in 0..scale.div_ceil(4) {
        writeln!(
            out,
            "SELECT kind, count(*), sum(price), max(length(note)) FROM item WHERE kind % 7 = {} GROUP BY kind ORDER BY 3 DESC LIMIT 5;",
            round % 7
        )?;
        writeln!(
            out,
            "SELECT name, group_concat(id) FROM item WHERE name LIKE '{}%' GROUP BY name ORDER BY name LIMIT 9;",
            rng.word().get(..1).unwrap_or("a")
        )?;
        writeln!(
            out,
            "UPDATE item SET note = upper(note) || '{}' WHERE id % 40 = {};",
            rng.word(),
            round % 40
        )?;
        for _ in 0..60 {
            writeln!(
                out,
                "SELECT i.name, s.day, s.count FROM sale s JOIN item i ON i.id = s.item WHERE s.item = {} ORDER BY s.day LIMIT 3;",
                1 + rng.below(items)
            )?;
        }
    }
    writeln!(
        out,
        "SELECT day, sum(count * price) FROM sale JOIN item ON item.id = sale.item GROUP BY day ORDER BY 2 DESC LIMIT 10;"
    )
}

fn xml(out: &mut dyn Write, scale: u64) -> io::Result<()> {
    let mut rng = Rng(2);
    writeln!(out, "<?xml version=\"1.0\"?>\n<library xmlns=\"urn:example\" xmlns:m=\"urn:example:meta\">")?;
    for id in 0..350 * scale {
        writeln!(out, "  <book id=\"b{id}\" m:shelf=\"{}\" lang=\"en\">", rng.below(400))?;
        writeln!(out, "    <title>{}</title>", rng.sentence(8))?;
        for _ in 0..rng.below(4) {
            writeln!(
                out,
                "    <author born=\"{}\"><first>{}</first> <last>{}</last></author>",
                1900 + rng.below(100),
                rng.word(),
                rng.word()
            )?;
        }
        writeln!(
            out,
            "    <!-- {} -->\n    <text>{} &amp; {}</text>\n  </book>",
            rng.word(),
            rng.sentence(40),
            rng.sentence(9)
        )?;
    }
    writeln!(out, "</library>")
}

fn json(out: &mut dyn Write, scale: u64) -> io::Result<()> {
    let mut rng = Rng(3);
    writeln!(out, "[")?;
    let people = 220 * scale;
    for id in 1..=people {
        let tags: Vec<String> = (0..rng.below(6)).map(|_| format!("\"{}\"", rng.word())).collect();
        let (name, city, age) = (rng.word(), rng.below(300), rng.below(90));
        let end = if id == people { "" } else { "," };
        writeln!(
            out,
            "{{\"id\":{id},\"name\":\"{name}\",\"city\":\"city{city}\",\"age\":{age},\"tags\":[{}],\"note\":\"{}\"}}{end}",
            tags.join(","),
            rng.sentence(10)
        )?;
    }
    writeln!(out, "]")
}

fn postscript(out: &mut dyn Write, scale: u64) -> io::Result<()> {
    let mut rng = Rng(4);
    writeln!(out, "%!PS-Adobe-3.0\n/Helvetica findfont 9 scalefont setfont")?;
    for _ in 0..scale.div_ceil(2) {
        for line in 0..70 {
            writeln!(out, "36 {} moveto ({}) show", 780 - line * 10, rng.sentence(12))?;
        }
        for _ in 0..150 {
            let [x, y, a, b, c, d] = std::array::from_fn(|_| rng.below(500));
            writeln!(
                out,
                "gsave {} setgray {x} {y} moveto {a} {b} {c} {d} {y} {x} curveto stroke grestore",
                rng.below(10) as f64 / 10.0
            )?;
        }
        writeln!(
            out,
            "/words {} dict def 0 1 {} {{ dup 20 string cvs cvn exch words 3 1 roll put }} for",
            900, 899
        )?;
        writeln!(out, "words {{ pop 30 string cvs pop }} forall showpage")?;
    }
    Ok(())
}

fn c(out: &mut dyn Write, functions: u64) -> io::Result<()> {
    let mut rng = Rng(5);
    writeln!(out, "struct point {{ int x, y; double weight; const char *name; }};")?;
    for number in 0..functions {
        let name = format!("f{number}_{}", rng.word());
        writeln!(
            out,
            "static const char *text_{number}[] = {{ \"{}\", \"{}\" }};",
            rng.sentence(5),
            rng.sentence(5)
        )?;
        writeln!(
            out,
            "int {name}(struct point *points, int count, int limit)\n{{\n  int sum = {}, i, j;",
            rng.below(99)
        )?;
        writeln!(out, "  for (i = 0; i < count; i++) {{\n    struct point *p = &points[i];")?;
        for _ in 0..4 + rng.below(10) {
            let [a, b, c] = std::array::from_fn(|_| 1 + rng.below(97));
            match rng.below(4) {
                0 => writeln!(
                    out,
                    "    if (p->x * {a} > p->y + {b}) sum += p->x % {c}; else p->weight *= {a}.{b};"
                )?,
                1 => writeln!(
                    out,
                    "    for (j = {a}; j < limit && j < {c}{b}; j += {b}) sum ^= (j << {}) + p->y;",
                    a % 8
                )?,
                2 => writeln!(
                    out,
                    "    switch (sum % {}) {{ case 0: sum -= {a}; break; case 1: p->y = sum * {b}; default: p->x++; }}",
                    2 + c
                )?,
                _ => writeln!(
                    out,
                    "    p->name = text_{number}[(sum + {a}) & 1]; while (sum > {a}{b}{c}) sum /= {};",
                    2 + b
                )?,
            }
        }
        writeln!(out, "  }}\n  return sum;\n}}\n")?;
    }
    Ok(())
}

/// Files for `ls -laR`.
fn tree(root: &Path, scale: u64) -> io::Result<()> {
    let mut rng = Rng(6);
    for directory in 0..scale * 3 {
        let path = root.join(format!("{}/{}-{directory}", rng.below(9), rng.word()));
        fs::create_dir_all(&path)?;
        for file in 0..40 {
            File::create(path.join(format!("{}-{file}.txt", rng.word())))?;
        }
    }
    Ok(())
}

/// A history of changes to some text files, through `git fast-import`, which takes the dates it is given.
fn repository(place: &Place) -> io::Result<()> {
    let Some(git) = program("git") else { return Ok(()) };
    let path = place.file("repository.git");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&git);
        calm(command.env_clear(), &place.inputs);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    command(&["init", "--bare", "-b", "main", "repository.git"]).status()?;
    let mut import = command(&["-C", "repository.git", "fast-import", "--quiet"]);
    let mut child = import.stdin(Stdio::piped()).spawn()?;
    if let Some(pipe) = child.stdin.take() {
        let mut out = BufWriter::new(pipe);
        history(&mut out, place.scale)?;
        out.flush()?;
    }
    if !child.wait()?.success() {
        return Err(io::Error::other(format!("git fast-import failed in {}", path.display())));
    }
    Ok(())
}

fn history(out: &mut dyn Write, scale: u64) -> io::Result<()> {
    let mut rng = Rng(7);
    let mut files: Vec<Vec<String>> = (0..24).map(|_| (0..120).map(|_| rng.sentence(10)).collect()).collect();
    let count = files.len() as u64;
    for commit in 0..14 * scale {
        let message = rng.sentence(20);
        let time = 1_100_000_000 + commit * 600;
        writeln!(out, "commit refs/heads/main\ncommitter A U Thor <author@example.org> {time} +0000")?;
        writeln!(out, "data {}\n{message}", message.len())?;
        for _ in 0..1 + rng.below(3) {
            let index = rng.below(count) as usize;
            let Some(file) = files.get_mut(index) else { continue };
            for _ in 0..1 + rng.below(8) {
                let line = rng.below(file.len() as u64) as usize;
                let text = rng.sentence(10);
                if rng.below(3) == 0 { file.insert(line, text) } else { file[line] = text }
            }
            file.truncate(220);
            let text = file.join("\n") + "\n";
            writeln!(out, "M 100644 inline src/{index}/file{index}.txt\ndata {}\n{text}", text.len())?;
        }
        writeln!(out)?;
    }
    writeln!(out, "done")
}

/// `objects.c` twice: as it is, and with AddressSanitizer where clang is installed.
fn compile(place: &Place) -> io::Result<()> {
    for (compiler, options, output) in [
        ("gcc", &["-O1"][..], "objects"),
        ("clang-19", &["-O1", "-fsanitize=address"][..], "objects-recompiled"),
    ] {
        let Some(compiler) = program(compiler) else { continue };
        let mut command = Command::new(compiler);
        calm(command.env_clear(), &place.inputs);
        let status = command.args(options).args(["-g", "objects.c", "-o", output]).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{output} does not compile")));
        }
    }
    Ok(())
}
