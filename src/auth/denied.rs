//! Why a token was refused: one word for the client, a detail for the log, a label for the metric.

use std::fmt;

pub use crate::protocol::close::DeniedWord;

/// A refused token. Nothing in it comes from the token: the detail is one of the sentences in this module's callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    word: DeniedWord,
    detail: &'static str,
}

impl Denied {
    pub(crate) const fn new(word: DeniedWord, detail: &'static str) -> Self {
        Self { word, detail }
    }

    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self::new(DeniedWord::TokenMalformed, detail)
    }

    /// What the client is told in the close frame.
    pub const fn word(self) -> DeniedWord {
        self.word
    }

    /// What the log says. Never holds a byte of the token.
    pub const fn detail(self) -> &'static str {
        self.detail
    }

    /// The metric's label, from a closed set.
    pub const fn label(self) -> &'static str {
        self.word.as_str()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word.as_str(), self.detail)
    }
}

impl std::error::Error for Denied {}

/// Why a token is not taken for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotVerified {
    /// It is not.
    Denied(Denied),
    /// Nobody knows: whoever has its keys does not answer.
    Unavailable,
}

impl From<Denied> for NotVerified {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}
