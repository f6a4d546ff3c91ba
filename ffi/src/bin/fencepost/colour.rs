//! Colour in reports: added line by line, and only for a person at a terminal.

use clap::ValueEnum;
use std::borrow::Cow;
use std::env;
use std::io::IsTerminal;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl When {
    /// Whether what goes to `stream` is coloured.
    pub fn applies(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
                !plain && !dumb && stream.is_terminal()
            }
        }
    }
}

const RESET: &str = "\x1b[0m";
const ERROR: &str = "\x1b[1;31m";
const ACCESS: &str = "\x1b[1;34m";
const REGION: &str = "\x1b[1;32m";
const EVENT: &str = "\x1b[1;35m";
const STRONG: &str = "\x1b[1m";
const FAINT: &str = "\x1b[2m";

/// The text with its lines coloured by what they say.
pub fn paint(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> Cow<'_, str> {
    let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
    let colour = if body.contains("==ERROR: fencepost: ") || body.trim_start().starts_with("^^") {
        ERROR
    } else if ["READ ", "WRITE ", "ACCESS "].iter().any(|start| body.starts_with(start)) {
        ACCESS
    } else if body.contains(" is located ") {
        REGION
    } else if ["allocated by thread ", "freed by thread "].iter().any(|start| body.starts_with(start)) {
        EVENT
    } else if body.starts_with("SUMMARY: ") {
        STRONG
    } else if body.starts_with("====") {
        FAINT
    } else {
        return Cow::Borrowed(line);
    };
    Cow::Owned(format!("{colour}{body}{RESET}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_and_nothing_is_lost() {
        let text = "a line\n==1==ERROR: fencepost: double-free on address 0x1\nSUMMARY: fencepost: x\n    #0 0x1 (a+0x1)";
        let painted = paint(text);
        assert!(painted.contains("\x1b[1;31m==1==ERROR"), "{painted:?}");
        let codes = [RESET, ERROR, STRONG];
        let plain = codes.iter().fold(painted.clone(), |text, code| text.replace(code, ""));
        assert_eq!(plain, text);
        assert!(painted.starts_with("a line\n"));
    }
}
