//! Colour for people: only on a terminal, never when they asked for none.

use std::fmt::Display;
use std::io::IsTerminal;

use super::Environment;

/// Puts words in colour, or leaves them alone.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For what is printed to `stream`.
    pub fn for_stream(stream: &impl IsTerminal, environment: &Environment) -> Self {
        Self {
            on: stream.is_terminal() && !environment.no_color(),
        }
    }

    /// Never any colour.
    #[cfg(test)]
    pub fn off() -> Self {
        Self { on: false }
    }

    /// Important words.
    pub fn bold(self, words: impl Display) -> String {
        self.wrap("1", words)
    }

    /// A warning: black on yellow.
    pub fn loud(self, words: impl Display) -> String {
        self.wrap("1;30;43", words)
    }

    /// Something to click or copy.
    pub fn link(self, words: impl Display) -> String {
        self.wrap("36", words)
    }

    /// Side remarks.
    pub fn faint(self, words: impl Display) -> String {
        self.wrap("2", words)
    }

    fn wrap(self, code: &str, words: impl Display) -> String {
        if self.on {
            format!("\x1b[{code}m{words}\x1b[0m")
        } else {
            words.to_string()
        }
    }
}
