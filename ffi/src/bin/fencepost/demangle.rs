//! Names as their language has them, within bounds.
//!
//! A mangled name may refer back to its parts again and again: 500 bytes can spell what no memory holds. Names come from
//! whatever is being looked at, so neither their length nor what becomes of them is taken on trust.

use std::fmt::{self, Write};

/// Bytes of a mangled name, and of what it spells; beyond them a name stays as it is.
const LONGEST: usize = 64 << 10;

/// The name in Rust or C++, or as it is.
pub fn demangled(name: &str) -> String {
    if name.len() > LONGEST {
        return name.to_owned();
    }
    let mut text = Bounded(String::new());
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return write!(text, "{rust:#}").map_or_else(|_| name.to_owned(), |()| text.0);
    }
    let options = cpp_demangle::DemangleOptions::default();
    match cpp_demangle::Symbol::new(name.as_bytes()) {
        Ok(symbol) if symbol.structured_demangle(&mut text, &options).is_ok() => text.0,
        _ => name.to_owned(),
    }
}

/// Text that refuses to become too long.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len().saturating_add(text.len()) > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled() {
        for (mangled, name) in [
            ("_ZN3app4user17h0123456789abcdefE", "app::user"),
            ("_RNvC1a4main", "a::main"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            ("main", "main"),
            ("", ""),
        ] {
            assert_eq!(demangled(mangled), name);
        }
    }

    /// Each part of the name is twice the one before.
    #[test]
    fn a_name_that_grows_without_end_stays_as_it_is() {
        let mut name = String::from("_Z1f1PIiiES_IS0_S0_E");
        for number in 1..36_u8 {
            let digit = char::from_digit(u32::from(number), 36).unwrap().to_ascii_uppercase();
            name.push_str(&format!("S_IS{digit}_S{digit}_E"));
        }
        assert_eq!(demangled(&name), name);
        let long = "_Z1f".repeat(1 << 20);
        assert_eq!(demangled(&long), long);
    }
}
