//! What Redis answers when it does not do a thing: whether anything was changed, and who should be asked instead.

use redis::{ServerError, Value};

use super::super::contract::{Failed, Refusal};

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It does not know the script: nothing was done, and its text will do.
    NoScript,
    /// The partition lives there now.
    Moved(String),
    /// The partition is being moved there; this once.
    Ask(String),
    /// Nothing was done, and this is not the server to ask: a replica, or a master that is none any more.
    NotMaster,
    Refused(Refusal),
}

impl From<Said> for Failed {
    fn from(said: Said) -> Self {
        Self::Refused(match said {
            Said::Refused(refusal) => refusal,
            Said::NoScript | Said::Moved(_) | Said::Ask(_) | Said::NotMaster => Refusal::Away,
        })
    }
}

/// Takes an answer apart.
pub(super) fn judge(answer: Value) -> Result<Value, Said> {
    match answer {
        Value::ServerError(error) => Err(classify(&error)),
        answer => Ok(answer),
    }
}

/// Scripts write only after everything that they read was looked at, and Redis checks memory, disk and replicas before
/// a script's first write only: whatever it refuses was not begun.
pub(super) fn classify(error: &ServerError) -> Said {
    let details = error.details().unwrap_or_default();
    let place = || details.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned();
    match error.code() {
        "NOSCRIPT" => Said::NoScript,
        "MOVED" => Said::Moved(place()),
        "ASK" => Said::Ask(place()),
        "READONLY" | "MASTERDOWN" => Said::NotMaster,
        "LATE" => Said::Refused(Refusal::Late),
        "LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" => Said::Refused(Refusal::Away),
        "OOM" => Said::Refused(Refusal::Full),
        "NOREPLICAS" | "MISCONF" => Said::Refused(Refusal::Unsafe),
        "NOPERM" | "NOAUTH" | "WRONGPASS" => Said::Refused(Refusal::Forbidden),
        _ => Said::Refused(Refusal::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Said {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a reply");
        judge(value).expect_err("an error")
    }

    #[test]
    fn errors_say_what_was_done_and_whom_to_ask() {
        let refused = Said::Refused;
        for (line, expected) in [
            ("NOSCRIPT No matching script. Please use EVAL.", Said::NoScript),
            ("MOVED 3999 127.0.0.1:6381", Said::Moved("127.0.0.1:6381".to_owned())),
            ("ASK 3999 127.0.0.1:6381", Said::Ask("127.0.0.1:6381".to_owned())),
            ("READONLY You can't write against a read only replica.", Said::NotMaster),
            ("LATE the deadline has passed", refused(Refusal::Late)),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                refused(Refusal::Away),
            ),
            ("CLUSTERDOWN The cluster is down", refused(Refusal::Away)),
            ("LOADING Redis is loading the dataset in memory", refused(Refusal::Away)),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                refused(Refusal::Full),
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                refused(Refusal::Unsafe),
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                refused(Refusal::Unsafe),
            ),
            ("NOPERM this user has no permissions", refused(Refusal::Forbidden)),
            ("WRONGTYPE Operation against a key", refused(Refusal::Broken)),
            ("ERR user_script:3: attempt to compare nil", refused(Refusal::Broken)),
            ("MOVED", Said::Moved(String::new())),
        ] {
            assert_eq!(said(line), expected, "{line}");
        }
    }
}
