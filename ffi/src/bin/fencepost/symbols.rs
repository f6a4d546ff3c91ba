//! From a module and an offset to functions, files and lines.

use crate::debugfiles;
use crate::demangle::demangled;
use crate::nolines::Advice;
use crate::printable;
use addr2line::Loader;
use std::collections::HashMap;

/// A place in a module, as a report gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The module's path, as [`printable`] shows it.
    pub module: String,
    /// Bytes from where its first mapping starts.
    pub offset: u64,
    /// Its build id in hexadecimal.
    pub build_id: Option<String>,
}

/// What is known of a place: one of the functions that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The function, demangled.
    pub function: Option<String>,
    /// The source file, the line and the column in it.
    pub file: Option<String>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1.
    pub column: Option<u32>,
    /// Whether the function was inlined into the next one.
    pub inlined: bool,
}

struct Loaded {
    loader: Loader,
    base: u64,
    /// Where the symbols end that have a size, by where they start.
    ends: HashMap<u64, u64>,
}

/// The symbols of modules, each loaded when it is first asked for.
#[derive(Default)]
pub struct Symbols {
    modules: HashMap<(String, Option<String>), Option<Loaded>>,
    /// What is said of code without lines.
    pub advice: Advice,
}

impl Symbols {
    /// The functions that the place is in, the innermost first; empty if nothing is known. A return
    /// address stands for the call before it.
    pub fn at(&mut self, place: &Location, is_return: bool) -> Vec<Source> {
        let key = (place.module.clone(), place.build_id.clone());
        let loaded = self.modules.entry(key).or_insert_with(|| load(place));
        let Some(loaded) = loaded else { return Vec::new() };
        let back = u64::from(is_return);
        let address = loaded.base.checked_add(place.offset).and_then(|it| it.checked_sub(back));
        // No code lies at the last address, and the reader of the tables asks for the one behind.
        let Some(address) = address.filter(|it| *it != u64::MAX) else { return Vec::new() };
        loaded.sources(address)
    }
}

fn load(place: &Location) -> Option<Loaded> {
    let found = debugfiles::find(&printable::path(&place.module), place.build_id.as_deref())?;
    let loader = Loader::new_with_sup(&found.file, found.shared.as_ref()).ok()?;
    let ends = debugfiles::ends(&found.file).unwrap_or_default();
    Some(Loaded { loader, base: found.base, ends })
}

impl Loaded {
    /// The symbol that an address lies in. The nearest before it may be of a function that ends earlier: what lies between two
    /// exported ones is stripped of its name. Symbols without a size are taken to reach up to the next.
    fn symbol(&self, address: u64) -> Option<&str> {
        let found = self.loader.find_symbol_info(address)?;
        self.ends.get(&found.address()).is_none_or(|end| address < *end).then(|| found.name())
    }

    fn sources(&self, address: u64) -> Vec<Source> {
        let mut sources = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
                let location = frame.location.as_ref();
                sources.push(Source {
                    function: name.map(|name| demangled(&name)),
                    file: location.and_then(|it| it.file).map(str::to_owned),
                    line: location.and_then(|it| it.line).filter(|line| *line != 0),
                    column: location.and_then(|it| it.column).filter(|column| *column != 0),
                    inlined: true,
                });
            }
        }
        // Code without debug information may still be in the symbol table, and functions of one file have
        // their namespaces and parameters only there.
        let symbol = || self.symbol(address).map(demangled);
        match sources.last_mut() {
            Some(outermost) => {
                outermost.inlined = false;
                let short = outermost.function.as_deref();
                let fuller = |full: &String| {
                    short.is_none_or(|short| {
                        full.contains(&format!("::{short}("))
                            || !short.contains("::") && full.ends_with(&format!("::{short}"))
                    })
                };
                if let Some(full) = symbol().filter(fuller) {
                    outermost.function = Some(full);
                }
            }
            None => {
                let function = symbol();
                if function.is_some() {
                    sources.push(Source { function, ..Source::default() });
                }
            }
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_no_symbols() {
        let mut symbols = Symbols::default();
        let place = Location { module: "/nonexistent".to_owned(), offset: 16, build_id: None };
        assert!(symbols.at(&place, true).is_empty());
    }
}
