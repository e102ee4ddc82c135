//! What a connection is called.

use std::fmt;

use uuid::Uuid;

/// `s-` and 32 hexadecimal digits.
const NAME_BYTES: usize = 34;

/// `connected.session`: the name of one connection in logs and for whoever ends it, random and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session(Uuid);

impl Session {
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Lends the name, without an allocation.
    pub fn with_name<T>(self, read: impl FnOnce(&str) -> T) -> T {
        let mut name = [0; NAME_BYTES];
        name[..2].copy_from_slice(b"s-");
        self.0.simple().encode_lower(&mut name[2..]);
        // Digits and letters only.
        read(std::str::from_utf8(&name).unwrap_or_default())
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_name(|name| f.pad(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_contract() {
        let session = Session(Uuid::from_u128(0x9f));
        assert_eq!(session.to_string(), "s-0000000000000000000000000000009f");
        assert_ne!(Session::random(), Session::random());
    }
}
