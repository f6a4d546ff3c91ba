//! fencepost's report, from text to fields.
//!
//! Only the lines that other tools rely on are read: the `==PID==ERROR: fencepost: KIND on address`
//! line, the line of the access, the line that relates the address to a region, the headings of the two
//! stacks and the summary.

/// What the faulting instruction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Where an address lies from a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    Inside,
    After,
}

/// `located DISTANCE bytes SIDE OBJECT_SIZE-byte region`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    pub distance: u64,
    pub side: Side,
    pub object_size: u64,
}

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub kind: String,
    pub pid: u32,
    pub address: u64,
    /// What the access was, and its size in bytes where the report tells.
    pub access: Option<(Access, Option<u64>)>,
    pub relation: Option<Relation>,
    /// Whether there is at least one frame under `allocated by thread`.
    pub has_alloc_stack: bool,
    /// Whether there is at least one frame under `freed by thread`.
    pub has_free_stack: bool,
    /// The line that starts with `SUMMARY: fencepost: `, without that.
    pub summary: Option<String>,
}

const SUMMARY: &str = "SUMMARY: fencepost: ";

impl Report {
    /// Every report in `text`, in order. What stands between them belongs to the one before.
    pub fn parse_all(text: &str) -> Vec<Report> {
        let mut reports: Vec<Report> = Vec::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(report) = first_line(line) {
                reports.push(report);
                continue;
            }
            let Some(report) = reports.last_mut() else {
                continue;
            };
            let stack_follows = lines.peek().is_some_and(|next| is_frame(next));
            if let Some(access) = access(line) {
                report.access.get_or_insert(access);
            } else if let Some(relation) = relation(line) {
                report.relation.get_or_insert(relation);
            } else if line.starts_with("allocated by thread T") {
                report.has_alloc_stack |= stack_follows;
            } else if line.starts_with("freed by thread T") {
                report.has_free_stack |= stack_follows;
            } else if let Some(summary) = line.strip_prefix(SUMMARY) {
                report.summary.get_or_insert_with(|| summary.to_owned());
            }
        }
        reports
    }
}

/// `==PID==ERROR: fencepost: KIND on address 0x…`
fn first_line(line: &str) -> Option<Report> {
    let (pid, rest) = line.strip_prefix("==")?.split_once("==ERROR: fencepost: ")?;
    let (kind, rest) = rest.split_once(" on address ")?;
    Some(Report {
        kind: kind.to_owned(),
        pid: pid.parse().ok()?,
        address: hexadecimal(rest.split_whitespace().next()?)?,
        access: None,
        relation: None,
        has_alloc_stack: false,
        has_free_stack: false,
        summary: None,
    })
}

/// `WRITE of size 4 at 0x…`, or `WRITE at 0x…` where the size is not known.
fn access(line: &str) -> Option<(Access, Option<u64>)> {
    let (access, rest) = match line.split_once(' ')? {
        ("READ", rest) => (Access::Read, rest),
        ("WRITE", rest) => (Access::Write, rest),
        _ => return None,
    };
    let size = rest.strip_prefix("of size ").and_then(leading_number);
    (size.is_some() || rest.starts_with("at ")).then_some((access, size))
}

/// `0x… is located 0 bytes after 13-byte region [0x…,0x…)`
fn relation(line: &str) -> Option<Relation> {
    let (_, rest) = line.split_once(" is located ")?;
    let distance = leading_number(rest)?;
    let (_, rest) = rest.split_once(" byte")?;
    let (side, rest) = rest.trim_start_matches('s').trim_start().split_once(' ')?;
    let (side, rest) = match side {
        "before" => (Side::Before, rest),
        "inside" => (Side::Inside, rest.strip_prefix("of ")?),
        "after" => (Side::After, rest),
        _ => return None,
    };
    let (object_size, _) = rest.split_once("-byte region [")?;
    Some(Relation { distance, side, object_size: object_size.parse().ok()? })
}

fn is_frame(line: &str) -> bool {
    line.trim_start().starts_with("#0 0x")
}

fn leading_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERFLOW: &str = "\
a line of the program's own
==================================================================
==4711==ERROR: fencepost: heap-buffer-overflow on address 0x7f30c0de1000 at pc 0x55d0aa001234 bp 0x01 sp 0x02
WRITE of size 4 at 0x7f30c0de1000 by thread T4711 (main)
    #0 0x55d0aa001234 (/tmp/a+0x1234)
    #1 0x55d0aa001300 (/tmp/a+0x1300)

0x7f30c0de1000 is located 0 bytes after 13-byte region [0x7f30c0de0ff3,0x7f30c0de1000)
allocated by thread T4711 (main) here:
    #0 0x55d0aa001100 (/tmp/a+0x1100)
SUMMARY: fencepost: heap-buffer-overflow (/tmp/a+0x1234)
==4711==END
";

    const DOUBLE_FREE: &str = "\
==12==ERROR: fencepost: double-free on address 0x0000000000f0 at pc 0x000000000001
found by thread T12
0x0000000000f0 is located 0 bytes inside of 64-byte region [0x0000000000f0,0x000000000130), freed
allocated by thread T12 here:
    (no stack)
freed by thread T13 here:
    #0 0x000000000002 (/tmp/b+0x2)
";

    #[test]
    fn every_field_is_read() {
        let expected = Report {
            kind: "heap-buffer-overflow".to_owned(),
            pid: 4711,
            address: 0x7f30_c0de_1000,
            access: Some((Access::Write, Some(4))),
            relation: Some(Relation { distance: 0, side: Side::After, object_size: 13 }),
            has_alloc_stack: true,
            has_free_stack: false,
            summary: Some("heap-buffer-overflow (/tmp/a+0x1234)".to_owned()),
        };
        assert_eq!(Report::parse_all(OVERFLOW), [expected]);
    }

    #[test]
    fn a_stack_without_frames_is_none() {
        let reports = Report::parse_all(DOUBLE_FREE);
        assert_eq!(reports.len(), 1);
        let report = &reports[0];
        assert!(!report.has_alloc_stack && report.has_free_stack);
        assert_eq!((report.pid, report.access), (12, None));
        assert_eq!(report.relation.map(|r| r.side), Some(Side::Inside));
    }

    #[test]
    fn two_reports_are_two() {
        let reports = Report::parse_all(&[DOUBLE_FREE, OVERFLOW].concat());
        let kinds: Vec<_> = reports.iter().map(|report| report.kind.as_str()).collect();
        assert_eq!(kinds, ["double-free", "heap-buffer-overflow"]);
    }

    #[test]
    fn relations_and_accesses_have_variants() {
        let before = "0x10 is located 1 byte before 16-byte region [0x11,0x21)";
        let expected = Relation { distance: 1, side: Side::Before, object_size: 16 };
        assert_eq!(relation(before), Some(expected));
        assert_eq!(relation("0x10 is located 1 bytes beside 16-byte region [)"), None);
        assert_eq!(access("READ at 0x10 by thread T1"), Some((Access::Read, None)));
        assert_eq!(access("READ ONLY"), None);
        assert_eq!(access("WRITE of something"), None);
    }

    #[test]
    fn other_text_has_no_reports() {
        assert!(Report::parse_all("").is_empty());
        assert!(Report::parse_all("==1==ERROR: AddressSanitizer: x on address 0x1").is_empty());
        assert!(Report::parse_all("==x==ERROR: fencepost: double-free on address 0x1").is_empty());
    }
}
