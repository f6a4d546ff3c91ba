//! Formatting into fixed buffers.

use core::fmt;

/// A buffer of `N` bytes that drops what does not fit and says so with [`Text::truncated`].
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
    truncated: bool,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Text<N> {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0, truncated: false }
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Appends raw bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.bytes.get_mut(self.len) {
                Some(place) => {
                    *place = *byte;
                    self.len = self.len.saturating_add(1);
                }
                None => self.truncated = true,
            }
        }
    }

    /// Whether something did not fit.
    pub const fn truncated(&self) -> bool {
        self.truncated
    }

    /// Empties the buffer.
    pub fn clear(&mut self) {
        self.len = 0;
        self.truncated = false;
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn keeps_what_fits() {
        let mut text = Text::<4>::new();
        let _ = write!(text, "{}", 12345);
        assert_eq!(text.as_bytes(), b"1234");
        assert!(text.truncated());
    }
}
