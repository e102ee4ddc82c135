//! How a verb fails: what is printed, and with which code the process ends.

use std::fmt;

use super::{EXIT_FAILURE, EXIT_USAGE};
use crate::config::Problems;

/// Why a verb did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// The arguments make no sense together; exit code 64.
    Usage(anyhow::Error),
    /// The configuration has problems, all of them listed; exit code 64.
    Config(Problems),
    /// Anything else; exit code 1.
    Other(anyhow::Error),
    /// The verb has said already what is wrong.
    Said(u8),
}

impl Failure {
    /// An argument that cannot be served, said in one or more lines.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(anyhow::anyhow!("{what}"))
    }

    /// Anything else that cannot be done, said in one or more lines.
    pub fn other(what: impl fmt::Display) -> Self {
        Self::Other(anyhow::anyhow!("{what}"))
    }

    /// The result of a verb that prints its own problems and answers with an exit code.
    pub fn from_code(code: u8) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self::Said(code)) }
    }

    /// Says on stderr what went wrong, and answers with the exit code.
    pub fn report(&self) -> u8 {
        match self {
            Self::Usage(error) => {
                eprintln!("error: {error:#}");
                EXIT_USAGE
            }
            Self::Config(problems) => {
                eprintln!("{}", problems.to_string().trim_end());
                EXIT_USAGE
            }
            Self::Other(error) => {
                eprintln!("error: {error:#}");
                EXIT_FAILURE
            }
            Self::Said(code) => *code,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}
