//! What NATS says when it does not do what it was asked, and what that means above.

use serde::Deserialize;

use crate::backplane::contract::{Failed, Refusal};

/// Why a request came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// An answer of JetStream: nothing was done.
#[derive(Debug, Clone, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub(super) struct ApiError {
    /// As HTTP has them.
    #[serde(default)]
    pub code: u16,
    /// Which of JetStream's errors.
    #[serde(default)]
    pub err_code: u16,
    #[serde(default)]
    pub description: String,
}

/// Names of JetStream's errors (`server/errors.json` of nats-server).
pub(super) mod code {
    pub const CLUSTER_NO_PEERS: u16 = 10_005;
    pub const NOT_AVAILABLE: u16 = 10_008;
    pub const INSUFFICIENT_RESOURCES: u16 = 10_023;
    pub const RESOURCES_EXCEEDED: u16 = 10_028;
    pub const NO_MESSAGE_FOUND: u16 = 10_037;
    pub const NOT_ENABLED_FOR_ACCOUNT: u16 = 10_039;
    pub const SEQUENCE_NOT_FOUND: u16 = 10_043;
    pub const STORAGE_EXCEEDED: u16 = 10_047;
    pub const DELETE_FAILED: u16 = 10_057;
    pub const STREAM_NAME_IN_USE: u16 = 10_058;
    pub const STREAM_NOT_FOUND: u16 = 10_059;
    pub const STREAM_SUBJECTS_OVERLAP: u16 = 10_065;
    pub const WRONG_LAST_SEQUENCE: u16 = 10_071;
    pub const REPLICAS_NOT_SUPPORTED: u16 = 10_074;
    pub const NOT_ENABLED: u16 = 10_076;
    pub const STORE_FAILED: u16 = 10_077;
    pub const STREAM_OFFLINE: u16 = 10_118;
}

impl ApiError {
    /// Whether what was asked for is not there.
    pub const fn is_missing(&self) -> bool {
        matches!(
            self.err_code,
            code::NO_MESSAGE_FOUND | code::STREAM_NOT_FOUND | code::SEQUENCE_NOT_FOUND
        )
    }

    /// Whether somebody else was faster.
    pub const fn is_conflict(&self) -> bool {
        self.err_code == code::WRONG_LAST_SEQUENCE
    }

    /// 10077 is any failure of the store: a stream that takes one message of each subject says it so.
    pub fn is_taken(&self) -> bool {
        self.err_code == code::STORE_FAILED && self.description.contains("per subject")
    }

    /// For those above.
    pub const fn refusal(&self) -> Refusal {
        match self.err_code {
            code::STORAGE_EXCEEDED | code::INSUFFICIENT_RESOURCES | code::RESOURCES_EXCEEDED => Refusal::Full,
            code::STORE_FAILED => Refusal::Full,
            code::NOT_AVAILABLE | code::STREAM_OFFLINE | code::STREAM_NOT_FOUND | code::NOT_ENABLED => Refusal::Away,
            code::NOT_ENABLED_FOR_ACCOUNT => Refusal::Forbidden,
            _ if self.code >= 500 => Refusal::Away,
            _ => Refusal::Broken,
        }
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Failed(failed) => failed,
            Problem::Api(error) => Self::Refused(error.refusal()),
        }
    }
}

impl Problem {
    /// An answer that cannot be read.
    pub const BROKEN: Self = Self::Failed(Failed::Refused(Refusal::Broken));

    /// Whether somebody else was faster.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_conflict())
    }
}

/// `None` for what is not there.
pub(super) fn optional<T>(answer: Result<T, Problem>) -> Result<Option<T>, Problem> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Problem::Api(error)) if error.is_missing() => Ok(None),
        Err(problem) => Err(problem),
    }
}
