//! Who did what: one log line for each change that somebody with a token asked for, whatever became of it.

use std::net::IpAddr;
use std::sync::Arc;

/// Target of those lines. The default filter shows it whatever `log.level` says.
pub const TARGET: &str = "conclave::audit";

/// Who asks: whose token it is, and from where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name of the token in `admin.token_file`, never the token.
    pub name: Arc<str>,
    pub address: IpAddr,
}

impl Caller {
    /// Begins to do `action` to `subject`; both words must be free of secrets.
    pub fn begin(&self, action: &'static str, subject: impl Into<String>) -> Audit {
        Audit {
            caller: self.clone(),
            action,
            subject: subject.into(),
            is_told: false,
        }
    }
}

/// One change. Dropped before its result was told, it says that nobody knows: the caller went away meanwhile.
#[must_use]
pub struct Audit {
    caller: Caller,
    action: &'static str,
    subject: String,
    is_told: bool,
}

impl Audit {
    /// It came to this.
    pub fn done(mut self, result: &str) {
        self.tell(result);
    }

    fn tell(&mut self, result: &str) {
        self.is_told = true;
        tracing::info!(
            target: TARGET,
            action = self.action,
            subject = self.subject,
            who = &*self.caller.name,
            address = %self.caller.address,
            result,
            "admin"
        );
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell("unknown: the caller went away");
        }
    }
}

/// Somebody came with a token that is none.
pub fn bad_token(address: IpAddr, action: &'static str) {
    tracing::warn!(target: TARGET, action, %address, result = "bad token", "admin");
}
