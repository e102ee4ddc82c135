//! Messages as JetStream hands them out: in an answer, from a consumer, and live.

use async_nats::Message;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::clock::millis;

/// When the publishing node took it, in ms since the Unix epoch by the server's clock. The server's own time does not
/// come with what it tells live, and a message must have one time.
pub(super) const TIME: &str = "Conclave-Time";

/// A message as a stream has it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub subject: String,
    pub seq: u64,
    /// When the server stored it, in ms since the Unix epoch.
    pub stored_ms: u64,
    /// [`TIME`], or when it was stored.
    pub time_ms: u64,
    pub payload: Bytes,
}

/// A message in an answer of the API.
#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl Raw {
    pub fn decode(self) -> Option<Stored> {
        let headers = BASE64_STANDARD.decode(&self.hdrs).ok()?;
        let payload = BASE64_STANDARD.decode(&self.data).ok()?;
        let stored = humantime::parse_rfc3339(&self.time).ok()?;
        let stored_ms = millis(stored.duration_since(std::time::UNIX_EPOCH).ok()?);
        Some(Stored {
            subject: self.subject,
            seq: self.seq,
            stored_ms,
            time_ms: time_of(&headers).unwrap_or(stored_ms),
            payload: payload.into(),
        })
    }
}

/// [`TIME`] of headers as they are stored.
fn time_of(headers: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(headers).ok()?;
    let value = text
        .split("\r\n")
        .find_map(|line| line.strip_prefix(TIME)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

/// A message from a consumer, whose reply subject says where it was:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>`, and in newer servers with a domain
/// and an account after `ACK` and a token at the end.
pub(super) fn consumed(message: Message) -> Option<Stored> {
    let reply = message.reply.as_ref()?;
    let tokens: Vec<&str> = reply.as_str().split('.').collect();
    let at = if tokens.len() >= 11 { 4 } else { 2 };
    let seq = tokens.get(at + 3)?.parse().ok()?;
    let stored_ns: u64 = tokens.get(at + 5)?.parse().ok()?;
    let stored_ms = stored_ns / 1_000_000;
    Some(Stored {
        subject: message.subject.to_string(),
        seq,
        stored_ms,
        time_ms: header(&message, TIME).unwrap_or(stored_ms),
        payload: message.payload,
    })
}

/// A number in a header.
pub(super) fn header(message: &Message, name: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_messages_are_read() {
        let raw = Raw {
            subject: "s".into(),
            seq: 5,
            hdrs: BASE64_STANDARD.encode("NATS/1.0\r\nNats-Msg-Id: k\r\nConclave-Time: 1700\r\n\r\n"),
            data: BASE64_STANDARD.encode("hi"),
            time: "2026-11-21T12:48:45.211723835Z".into(),
        };
        let stored = raw.decode().expect("readable");
        assert_eq!((stored.time_ms, stored.stored_ms), (1_700, 1_795_265_325_211));
        assert_eq!(&stored.payload[..], b"hi");
    }
}
