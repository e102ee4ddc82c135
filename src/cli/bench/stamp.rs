//! The mark that a message carries through the server: when it was sent, and by whom.
//!
//! `@t` + 16 hex digits of nanoseconds since the run began + 8 hex digits of the connection. Found by its first two
//! bytes, so that a delivery is counted without parsing JSON.

use std::fmt::Write;
use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Length of a stamp.
pub const BYTES: usize = 26;
const MARK: &[u8] = b"@t";
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));

/// When, and by which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since the run began.
    pub nanoseconds: u64,
    pub connection: u32,
}

impl Stamp {
    /// Appends the stamp, padded to `size` bytes.
    pub fn write(self, size: usize, text: &mut String) {
        let end = text.len() + size.max(BYTES);
        // Writing to a String cannot fail.
        let _ = write!(text, "@t{:016x}{:08x}", self.nanoseconds, self.connection);
        text.extend(std::iter::repeat_n('x', end - text.len()));
    }

    /// The first stamp in a message, if it has one.
    pub fn find(message: &[u8]) -> Option<Self> {
        let at = FINDER.find(message)?;
        let digits = std::str::from_utf8(message.get(at + MARK.len()..at + BYTES)?).ok()?;
        let (nanoseconds, connection) = digits.split_at_checked(16)?;
        Some(Self {
            nanoseconds: u64::from_str_radix(nanoseconds, 16).ok()?,
            connection: u32::from_str_radix(connection, 16).ok()?,
        })
    }
}
