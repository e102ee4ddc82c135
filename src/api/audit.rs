//! Who did what: one log line per request of somebody with a key, whatever became of it. No content, and no key.

use std::net::IpAddr;

use super::caller::Caller;
use crate::http::admin::audit::TARGET;

/// One request. Dropped before its result was told, it says that nobody knows: the caller went away meanwhile.
#[must_use]
pub(super) struct Audit {
    caller: Caller,
    operation: &'static str,
    is_told: bool,
}

impl Audit {
    pub fn begin(caller: Caller, operation: &'static str) -> Self {
        Self {
            caller,
            operation,
            is_told: false,
        }
    }

    /// It came to this status; `code` is the word of the problem, if it was one.
    pub fn done(mut self, status: u16, code: &str) {
        self.is_told = true;
        line(&self.caller, self.operation, &self.caller.subject(), status, code);
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.is_told {
            let gone = "unknown: the caller went away";
            line(&self.caller, self.operation, &self.caller.subject(), 0, gone);
        }
    }
}

/// One operation, a part of a batch for one.
pub fn line(caller: &Caller, operation: &str, subject: &str, status: u16, code: &str) {
    let result = if status < 400 && code.is_empty() { "ok" } else { code };
    tracing::info!(
        target: TARGET,
        action = operation,
        subject,
        who = &*caller.name,
        via = caller.via.as_str(),
        address = %caller.address,
        status,
        result,
        "api"
    );
}

/// Somebody came with a key or a token that is none.
pub fn bad_key(address: IpAddr, operation: &str, code: &str) {
    tracing::warn!(target: TARGET, action = operation, %address, status = 401, result = code, "api");
}
