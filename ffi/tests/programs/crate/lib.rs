//! A crate with bugs, for `ffi/tests/cargo.rs`.

/// Reads a word.
///
/// ```
/// assert_eq!(shaky::word(&[1, 2, 3], 1), 2);
/// ```
///
/// ```
/// let words = vec![1u64; 64];
/// shaky::doctested(&words, 64);
/// ```
pub fn word(words: &[u64], index: usize) -> u64 {
    unsafe { words.as_ptr().add(index).read_volatile() } // MARK word
}

/// The same.
pub fn doctested(words: &[u64], index: usize) -> u64 {
    unsafe { words.as_ptr().add(index).read_volatile() } // MARK doctested
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_long_name_that_begins_like_another_and_is_right() {
        assert_eq!(word(&[1, 2, 3], 1), 2);
    }

    #[test]
    fn a_long_name_that_begins_like_another_and_reads_behind() {
        word(&vec![1; 32], 32);
    }

    #[test]
    fn in_a_thread() {
        std::thread::spawn(|| word(&vec![1; 32], 33)).join().unwrap();
    }

    #[test]
    #[should_panic(expected = "as it should")]
    fn panics() {
        panic!("as it should");
    }

    #[test]
    fn starts_others() {
        assert!(Command::new("true").status().unwrap().success());
    }

    #[test]
    fn fails_if_told_to() {
        assert!(std::env::var_os("SHAKY_FAILS").is_none());
    }

    #[test]
    fn the_users_runner_came_first() {
        assert_eq!(std::env::var("SHAKY_RUNNER").as_deref(), Ok("yes"));
    }
}
