//! The allocator's options as flags: generated from the option table, checked by its parser.
//!
//! Each row `some_option` is a flag `--some-option VALUE`, and `--option key=value` takes any row. Items
//! keep the order of the command line, so that of two that contradict each other the later wins. What
//! is checked is the very text that is handed over: an item is rendered first and parsed back.
//!
//! The row `help` is no flag, since `--help` explains the launcher; `--option help=1` reaches it.

use crate::failure::Failure;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use fencepost_core::options::{Options, ROWS, Row, Warning, apply, quoted};
use fencepost_core::text::Excerpt;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The variable that the library reads.
pub const VARIABLE: &str = "FENCEPOST_OPTIONS";

/// The id and name of the flag that takes `key=value`.
const GENERIC: &str = "option";
/// Under which the flags stand in `--help`.
const HEADING: &str = "Options of the allocator";

/// One option as the allocator reads it: `key=value`, quoted where it must be.
#[derive(Clone, Debug)]
struct Item(Vec<u8>);

/// Options in the order given.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    items: Vec<Item>,
}

impl Settings {
    /// These settings, after a mode that any of them overrides.
    #[must_use]
    pub fn with_default_mode(mut self, mode: &str) -> Self {
        self.items.insert(0, Item(format!("mode={mode}").into_bytes()));
        self
    }

    /// Adds options as `FENCEPOST_OPTIONS` holds them.
    pub fn add(&mut self, text: &OsStr) -> Result<(), Failure> {
        let mut problem = None;
        apply(&mut { Options::DEFAULT }, text.as_bytes(), |warning| {
            problem.get_or_insert_with(|| explain(&warning));
        });
        if let Some(problem) = problem {
            return Err(Failure::new(problem));
        }
        self.items.push(Item(text.as_bytes().to_vec()));
        Ok(())
    }

    /// These settings with others before them, which they override, and others behind, which override them.
    pub fn between(&self, before: &[(&str, &str)], after: &[(&str, &str)]) -> Result<Self, Failure> {
        let item =
            |(key, value): &(&str, &str)| Item::new(key.as_bytes(), value.as_bytes()).map_err(Failure::new);
        let mut items = before.iter().map(item).collect::<Result<Vec<_>, _>>()?;
        items.extend(self.items.iter().cloned());
        items.extend(after.iter().map(item).collect::<Result<Vec<_>, _>>()?);
        Ok(Self { items })
    }

    /// The options that result from these settings and the environment's, `existing`.
    pub fn resulting(&self, existing: Option<&OsStr>) -> Options {
        let mut options = Options::DEFAULT;
        let (text, _) = self.merged_with(existing);
        apply(&mut options, text.unwrap_or_default().as_bytes(), |_| ());
        options
    }

    /// The value for `FENCEPOST_OPTIONS`: `existing` first, so that these settings win. `None` if there
    /// is nothing to say. The flag tells whether `existing` had an open quote that had to be closed.
    pub fn merged_with(&self, existing: Option<&OsStr>) -> (Option<OsString>, bool) {
        if self.items.is_empty() {
            return (existing.map(OsStr::to_os_string), false);
        }
        let mut text = existing.map(|value| value.as_bytes().to_vec()).unwrap_or_default();
        let open = text.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
        if open {
            text.push(b'"');
        }
        for Item(item) in &self.items {
            if !text.is_empty() {
                text.push(b':');
            }
            text.extend_from_slice(item);
        }
        (Some(OsString::from_vec(text)), open)
    }
}

impl Item {
    /// Renders and checks; the problem, if the allocator would not take it.
    fn new(key: &[u8], value: &[u8]) -> Result<Self, String> {
        let mut item = [key, b"="].concat();
        quoted(value, &mut |bytes| item.extend_from_slice(bytes));
        let mut problem = None;
        apply(&mut { Options::DEFAULT }, &item, |warning| {
            problem.get_or_insert_with(|| explain(&warning));
        });
        problem.map_or(Ok(Self(item)), Err)
    }
}

/// A warning of the option parser in words.
pub fn explain(warning: &Warning<'_>) -> String {
    let text = |bytes| Excerpt { bytes, most: 200 };
    match *warning {
        Warning::UnknownKey(key) => {
            format!("no option is called '{}' (`fencepost options` lists them)", text(key))
        }
        Warning::BadValue(key, value) => {
            let row = ROWS.iter().find(|row| row.name.as_bytes() == key);
            let range = row.map_or("another value", |row| row.range);
            format!("{} takes ({range}), not '{}'", text(key), text(value))
        }
        Warning::NoValue(item) => format!("'{}' is not key=value", text(item)),
    }
}

/// Reads the value of a flag.
#[derive(Clone, Copy)]
enum Parser {
    /// The flag of a row.
    Of(&'static Row),
    /// `key=value`.
    Generic,
}

impl TypedValueParser for Parser {
    type Value = Item;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Item, clap::Error> {
        let value = value.as_bytes();
        let (item, hint) = match *self {
            Self::Of(row) => {
                let hint = if is_switch(row) { "; put -- before the program" } else { "" };
                (Item::new(row.name.as_bytes(), value), hint)
            }
            Self::Generic => {
                let mut parts = value.splitn(2, |byte| *byte == b'=');
                let item = match (parts.next(), parts.next()) {
                    (Some(key), Some(value)) => Item::new(key, value),
                    _ => Err(explain(&Warning::NoValue(value))),
                };
                (item, "")
            }
        };
        item.map_err(|problem| {
            let message = format!("{problem}{hint}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// The rows that are flags.
fn flags() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| row.name != "help")
}

/// Whether the option is on or off, more or less on perhaps, or something else as well: its flag alone means 1.
fn is_switch(row: &Row) -> bool {
    row.range.strip_prefix("0, 1").is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ';']))
}

fn flag_name(row: &Row) -> String {
    row.name.replace('_', "-")
}

fn flag(row: &'static Row) -> Arg {
    let default = default_of(row);
    let arg = Arg::new(row.name)
        .long(flag_name(row))
        .value_name("VALUE")
        .value_parser(Parser::Of(row))
        .action(ArgAction::Append)
        .help_heading(HEADING)
        .help(format!("{} [{}] [default: {default}]", row.help.trim_end_matches('.'), row.range));
    if is_switch(row) { arg.num_args(0..=1).default_missing_value("1") } else { arg }
}

/// The default of a row in the spelling the option takes.
pub fn default_of(row: &Row) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = (row.show)(&Options::DEFAULT, &mut text);
    if text.is_empty() { "unset".to_owned() } else { text }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let generic = Arg::new(GENERIC)
            .long(GENERIC)
            .short('o')
            .value_name("KEY=VALUE")
            .value_parser(Parser::Generic)
            .action(ArgAction::Append)
            .help_heading(HEADING)
            .help("Set any option by its name in FENCEPOST_OPTIONS");
        flags().map(flag).fold(command.arg(generic), Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given: Vec<(usize, &Item)> = Vec::new();
        for id in flags().map(|row| row.name).chain([GENERIC]) {
            let indices = matches.indices_of(id).into_iter().flatten();
            given.extend(indices.zip(matches.get_many::<Item>(id).into_iter().flatten()));
        }
        given.sort_by_key(|(index, _)| *index);
        Ok(Self { items: given.into_iter().map(|(_, item)| item.clone()).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
