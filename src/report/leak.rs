//! The report of leaks, in the form that LeakSanitizer made familiar.

use super::fatal::{self, Context};
use super::json;
use super::modules::Modules;
use super::render;
use crate::options::ReportForm;
use crate::sys::thread;
use crate::trace::Frames;
use core::fmt::{self, Write};

/// Whether an object can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Nothing points at it.
    Direct = 0,
    /// Only lost objects point at it.
    Indirect = 1,
    /// Something that the program still has points at it.
    Reachable = 2,
}

/// Objects of one kind that were allocated at one place. All zero bytes are an empty group.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Their kind.
    pub kind: Kind,
    /// The allocation's stack in the depot, 0 if none was kept.
    pub stack: u32,
    /// Without a stack: their size, which tells them apart then.
    pub size: usize,
    /// How many they are.
    pub objects: u64,
    /// Their bytes in all.
    pub bytes: u64,
}

/// Groups that are written out of each kind.
const LISTED: u64 = 200;

/// Sums of one kind.
#[derive(Clone, Copy, Default)]
struct Sum {
    groups: u64,
    objects: u64,
    bytes: u64,
}

/// Writes `groups`, sorted, and their sums. `complete` says whether no thread ran meanwhile. The number of
/// objects that are lost and not suppressed.
pub fn write(context: &Context, groups: &[Group], complete: bool, stack: impl Fn(u32) -> Frames) -> u64 {
    let mut sums = [Sum::default(); 3];
    let mut suppressed = Sum::default();
    let mut rest = groups;
    let mut begun = false;
    let json = context.options.report == ReportForm::Json;
    fatal::write_pieces(context, |out, modules| {
        while let Some((group, tail)) = rest.split_first() {
            rest = tail;
            let frames = stack(group.stack);
            let lost = group.kind != Kind::Reachable;
            let covered = lost && fatal::leak_is_suppressed(&frames, modules);
            let sum = if covered { Some(&mut suppressed) } else { sums.get_mut(group.kind as usize) };
            let Some(sum) = sum else { continue };
            sum.groups = sum.groups.saturating_add(1);
            sum.objects = sum.objects.saturating_add(group.objects);
            sum.bytes = sum.bytes.saturating_add(group.bytes);
            if covered || sum.groups > LISTED {
                continue;
            }
            let _ = if json {
                json_line(out, group, &frames, modules)
            } else {
                (if begun { Ok(()) } else { headline(out) }).and_then(|()| text(out, group, &frames, modules))
            };
            begun = true;
            return false;
        }
        let _ = if json {
            json_sums(out, &sums, suppressed)
        } else {
            text_sums(out, &sums, suppressed, complete)
        };
        true
    });
    let lost = sums.iter().take(Kind::Reachable as usize);
    lost.fold(0, |objects, sum| objects.saturating_add(sum.objects))
}

/// Says that no search could be made.
pub fn write_failure(context: &Context) {
    fatal::write_pieces(context, |out, _| {
        let _ = writeln!(
            out,
            "fencepost: no search for leaks: no memory for it, or no signal to stop threads by"
        );
        true
    });
}

fn headline(out: &mut dyn Write) -> fmt::Result {
    let pid = thread::pid();
    writeln!(
        out,
        "==================================================================\n\
         =={pid}==LEAKS: fencepost: still allocated at the end"
    )
}

fn text(out: &mut dyn Write, group: &Group, frames: &Frames, modules: &Modules<'_>) -> fmt::Result {
    let what = match group.kind {
        Kind::Direct => "Direct leak",
        Kind::Indirect => "Indirect leak",
        Kind::Reachable => "Still reachable",
    };
    let of = if group.kind == Kind::Reachable { ":" } else { " of" };
    write!(out, "\n{what}{of} {} byte(s) in {} object(s)", group.bytes, group.objects)?;
    if group.stack == 0 {
        return writeln!(out, " of {} byte(s) each, whose allocation was not recorded", group.size);
    }
    writeln!(out, " allocated from:")?;
    render::frames(out, frames, true, modules)
}

fn text_sums(out: &mut dyn Write, sums: &[Sum; 3], suppressed: Sum, complete: bool) -> fmt::Result {
    let pid = thread::pid();
    let [direct, indirect, reachable] = sums;
    writeln!(out, "\n=={pid}==LEAK SUMMARY: fencepost:")?;
    let rows = [
        ("directly lost", direct),
        ("indirectly lost", indirect),
        ("still reachable", reachable),
        ("suppressed", &suppressed),
    ];
    for (name, sum) in rows {
        write!(out, "    {name}: {} bytes in {} objects", sum.bytes, sum.objects)?;
        match sum.groups.checked_sub(LISTED) {
            Some(more) if more > 0 && name != "suppressed" => writeln!(out, ", {more} places not listed")?,
            _ => writeln!(out)?,
        }
    }
    if !complete {
        writeln!(out, "    some threads could not be stopped: what they were moving may be taken for lost")?;
    }
    let (bytes, objects) =
        (direct.bytes.saturating_add(indirect.bytes), direct.objects.saturating_add(indirect.objects));
    if objects != 0 {
        writeln!(out, "SUMMARY: fencepost: {bytes} byte(s) leaked in {objects} allocation(s).")?;
    }
    Ok(())
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Direct => "direct",
        Kind::Indirect => "indirect",
        Kind::Reachable => "reachable",
    }
}

fn json_line(out: &mut dyn Write, group: &Group, frames: &Frames, modules: &Modules<'_>) -> fmt::Result {
    write!(
        out,
        "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{},\"leak\":{{\"kind\":\"{}\",\"bytes\":{},\"objects\":{},\"frames\":[",
        thread::pid(),
        name(group.kind),
        group.bytes,
        group.objects,
    )?;
    for (index, pc) in frames.as_slice().iter().enumerate() {
        write!(out, "{}", if index == 0 { "" } else { "," })?;
        json::frame(out, *pc, true, modules)?;
    }
    writeln!(out, "]}}}}")
}

fn json_sums(out: &mut dyn Write, sums: &[Sum; 3], suppressed: Sum) -> fmt::Result {
    write!(out, "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{},\"leaks\":{{", thread::pid())?;
    for (kind, sum) in [Kind::Direct, Kind::Indirect, Kind::Reachable].into_iter().zip(sums) {
        write!(out, "\"{}\":{{\"bytes\":{},\"objects\":{}}},", name(kind), sum.bytes, sum.objects)?;
    }
    writeln!(out, "\"suppressed\":{{\"bytes\":{},\"objects\":{}}}}}}}", suppressed.bytes, suppressed.objects)
}
