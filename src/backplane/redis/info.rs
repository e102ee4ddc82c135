//! What `INFO` says.

use redis::{Value, cmd};

use super::super::contract::Failed;
use super::error::judge;
use super::link::Link;
use super::reply::text;

/// Lines `name:value` of one or more sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info(String);

/// Which server it is, and whether it takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) is_master: bool,
    /// `master_replid`; empty where it is hidden.
    pub(super) replid: String,
    pub(super) replicas: u32,
}

impl Info {
    /// Asks for sections.
    pub(super) async fn ask(link: &Link, sections: &[&str]) -> Result<Self, Failed> {
        let mut command = cmd("INFO");
        for section in sections {
            command.arg(section);
        }
        Self::read(link.send(&command).await?)
    }

    fn read(answer: Value) -> Result<Self, Failed> {
        Ok(Self(text(Some(judge(answer)?))?))
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }

    /// From the section `replication`.
    pub(super) fn server(&self) -> Server {
        Server {
            is_master: self.field("role") == Some("master"),
            replid: self.field("master_replid").unwrap_or_default().to_owned(),
            replicas: self
                .field("connected_slaves")
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
        }
    }

    /// From the section `server`: 7 of `redis_version:7.0.15`. Valkey says which Redis it is like.
    pub(super) fn major_version(&self) -> Option<u32> {
        self.field("redis_version")?.split('.').next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_replid:ab12\r\nmaster_replid2:0\r\n\
                    redis_version:7.0.15\r\n";
        let info = Info::read(Value::BulkString(text.into())).expect("text");
        let server = info.server();
        assert_eq!(
            (server.is_master, server.replid.as_str(), server.replicas),
            (true, "ab12", 2)
        );
        assert_eq!(info.major_version(), Some(7));
        assert_eq!(info.field("master"), None);
        let nothing = Info::read(Value::BulkString(Vec::new())).expect("text");
        assert!(!nothing.server().is_master);
        assert!(Info::read(Value::Nil).is_err(), "out of step");
    }
}
