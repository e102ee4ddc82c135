//! Why a call had no answer.

use std::error::Error;
use std::fmt;
use std::io;

use super::resolver::ForbiddenName;
use crate::telemetry::metrics::{Label, OutboundResult};

/// No answer, or none that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailed {
    /// The name leads to addresses that may not be called.
    Forbidden,
    /// Nobody there: the name, the port, the network.
    Connect,
    /// They are not who they should be, or speak no TLS.
    Tls,
    /// Not answered whole within the deadline.
    Timeout,
    /// More than the caller takes.
    TooLarge,
    /// Not HTTP, or broken off.
    Protocol,
}

impl CallFailed {
    /// For metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.label().word()
    }

    pub(super) fn label(self) -> OutboundResult {
        match self {
            Self::Forbidden => OutboundResult::Forbidden,
            Self::Connect => OutboundResult::Connect,
            Self::Tls => OutboundResult::Tls,
            Self::Timeout => OutboundResult::Timeout,
            Self::TooLarge => OutboundResult::TooLarge,
            Self::Protocol => OutboundResult::Protocol,
        }
    }

    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut is_tls = false;
        for cause in causes(error) {
            if cause.is::<ForbiddenName>() {
                return Self::Forbidden;
            }
            is_tls |= cause.is::<rustls::Error>();
        }
        match () {
            () if is_tls => Self::Tls,
            () if error.is_timeout() => Self::Timeout,
            () if error.is_connect() => Self::Connect,
            () => Self::Protocol,
        }
    }
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error for CallFailed {}

/// The innermost cause, for the log. The outer ones only repeat that a request failed, and show its URL.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

/// What is behind `error`, from the outside in.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(inner(error), |error| inner(*error))
}

/// `io::Error::source` skips the error that it wraps.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
