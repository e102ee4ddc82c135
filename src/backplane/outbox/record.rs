//! One event on its way to a hook: as it lies in an outbox, and as the backend reads it.
//!
//! ```text
//! c <id> <time ms> <epoch> <seq> <node> <room> <key> <envelope>      chat; a key is `-` or sized
//! j <id> <time ms> <node> <room> <user JSON>                         join
//! l <id> <time ms> <node> <room> <user JSON>                         left
//! s <id> <time ms> <members of the JSON object>                      open, close
//! x <id> <time ms> <count> <since ms> <until ms>                     so many were lost here
//! ```
//!
//! `node`, `room` and a `key` are sized: how many bytes, a space, those bytes. Numbers are decimal.

use std::fmt::Write as _;

use super::super::envelope::Envelope;
use crate::protocol::server::quote;

/// Not a record, or of a version that this build cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// One event, borrowed from where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Never used twice, and the same however often the event is sent.
    pub id: &'a str,
    /// When it happened, in ms since the Unix epoch.
    pub time_ms: u64,
    pub what: What<'a>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What<'a> {
    Chat {
        epoch: &'a str,
        seq: u64,
        node: &'a str,
        room: &'a str,
        key: Option<&'a str>,
        /// See [`super::super::envelope`].
        envelope: &'a str,
    },
    Presence {
        joined: bool,
        node: &'a str,
        room: &'a str,
        user_json: &'a str,
    },
    /// Members of the object, without braces: `"event":"open","node":…`.
    Session { members: &'a str },
    /// So many events were not kept, for want of room.
    Lost { count: u64, since_ms: u64, until_ms: u64 },
}

impl<'a> Record<'a> {
    /// # Errors
    /// [`Unreadable`]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut words = Words(std::str::from_utf8(bytes).map_err(|_| Unreadable)?);
        let kind = words.next()?;
        let (id, time_ms) = (words.next()?, words.number()?);
        let what = match kind {
            "c" => What::Chat {
                epoch: words.next()?,
                seq: words.number()?,
                node: words.sized()?,
                room: words.sized()?,
                key: words.key()?,
                envelope: words.0,
            },
            "j" | "l" => What::Presence {
                joined: kind == "j",
                node: words.sized()?,
                room: words.sized()?,
                user_json: words.0,
            },
            "s" => What::Session { members: words.0 },
            "x" => What::Lost {
                count: words.number()?,
                since_ms: words.number()?,
                until_ms: words.last_number()?,
            },
            _ => return Err(Unreadable),
        };
        Ok(Self { id, time_ms, what })
    }

    /// As it lies in an outbox.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { id, time_ms, what } = self;
        match what {
            What::Chat {
                epoch,
                seq,
                node,
                room,
                key,
                envelope,
            } => format!(
                "c {id} {time_ms} {epoch} {seq} {}{}{}{envelope}",
                sized(node),
                sized(room),
                key_text(*key)
            ),
            What::Presence {
                joined,
                node,
                room,
                user_json,
            } => {
                let kind = if *joined { 'j' } else { 'l' };
                format!("{kind} {id} {time_ms} {}{}{user_json}", sized(node), sized(room))
            }
            What::Session { members } => format!("s {id} {time_ms} {members}"),
            What::Lost {
                count,
                since_ms,
                until_ms,
            } => format!("x {id} {time_ms} {count} {since_ms} {until_ms}"),
        }
    }

    /// Writes the object that the backend reads.
    ///
    /// # Errors
    /// [`Unreadable`]: the envelope is none; nothing was written.
    pub fn write_json(&self, out: &mut String) -> Result<(), Unreadable> {
        let envelope = match &self.what {
            What::Chat { envelope, .. } => Some(Envelope::parse(envelope.as_bytes()).map_err(|_| Unreadable)?),
            _ => None,
        };
        let _ = write!(out, r#"{{"id":{},"time":{}"#, quote(self.id), self.time_ms);
        match (&self.what, envelope) {
            (
                What::Chat {
                    epoch,
                    seq,
                    node,
                    room,
                    key,
                    ..
                },
                Some(envelope),
            ) => {
                let _ = write!(
                    out,
                    r#","event":"chat","node":{},"room":{},"user":{},"epoch":{},"seq":{seq},"content":{}"#,
                    quote(node),
                    quote(room),
                    envelope.from.get(),
                    quote(epoch),
                    envelope.content.get(),
                );
                if let Some(key) = key {
                    let _ = write!(out, r#","key":{}"#, quote(key));
                }
                if let Some(trace) = envelope.trace {
                    let _ = write!(out, r#","trace":{}"#, quote(trace));
                }
            }
            (
                What::Presence {
                    joined,
                    node,
                    room,
                    user_json,
                },
                _,
            ) => {
                let event = if *joined { "join" } else { "left" };
                let _ = write!(
                    out,
                    r#","event":"{event}","node":{},"room":{},"user":{user_json}"#,
                    quote(node),
                    quote(room)
                );
            }
            (What::Session { members }, _) => {
                out.push(',');
                out.push_str(members);
            }
            (
                What::Lost {
                    count,
                    since_ms,
                    until_ms,
                },
                _,
            ) => {
                let _ = write!(
                    out,
                    r#","event":"lost","count":{count},"since":{since_ms},"until":{until_ms}"#
                );
            }
            (What::Chat { .. }, None) => {}
        }
        out.push('}');
        Ok(())
    }
}

/// How many bytes, and they.
#[must_use]
pub fn sized(text: &str) -> String {
    format!("{} {text}", text.len())
}

/// `-`, or the key with its size.
#[must_use]
pub fn key_text(key: Option<&str>) -> String {
    key.map_or_else(|| "- ".to_owned(), sized)
}

/// Takes words that end with a space off the front.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, Unreadable> {
        let (word, rest) = self.0.split_once(' ').ok_or(Unreadable)?;
        self.0 = rest;
        Ok(word)
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        number(self.next()?)
    }

    fn last_number(&mut self) -> Result<u64, Unreadable> {
        number(std::mem::take(&mut self.0))
    }

    fn take(&mut self, bytes: u64) -> Result<&'a str, Unreadable> {
        let bytes = usize::try_from(bytes).map_err(|_| Unreadable)?;
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    fn sized(&mut self) -> Result<&'a str, Unreadable> {
        let bytes = self.number()?;
        self.take(bytes)
    }

    fn key(&mut self) -> Result<Option<&'a str>, Unreadable> {
        match self.next()? {
            "-" => Ok(None),
            bytes => {
                let bytes = number(bytes)?;
                self.take(bytes).map(Some)
            }
        }
    }
}

fn number(digits: &str) -> Result<u64, Unreadable> {
    if digits.starts_with(|c: char| c.is_ascii_digit()) {
        digits.parse().map_err(|_| Unreadable)
    } else {
        Err(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> serde_json::Value {
        let mut out = String::new();
        Record::parse(text.as_bytes())
            .expect("a record")
            .write_json(&mut out)
            .expect("JSON");
        serde_json::from_str(&out).expect("JSON")
    }

    #[test]
    fn a_chat_reads_as_the_backend_wants_it() {
        let text = r#"c e-1 1700000000000 E1 7 1 a6 lob"by3 k 1{"v":1,"from":{"id":"u7"},"content":{"a":1}}"#;
        assert_eq!(
            json(text),
            serde_json::json!({
                "id": "e-1", "event": "chat", "time": 1_700_000_000_000_u64, "node": "a", "room": "lob\"by",
                "user": {"id": "u7"}, "epoch": "E1", "seq": 7, "content": {"a": 1}, "key": "k 1",
            })
        );
    }

    #[test]
    fn who_came_and_what_was_lost_reads_too() {
        assert_eq!(
            json(r#"l e-2 5 1 b5 lobby{"id":"u"}"#),
            serde_json::json!({"id": "e-2", "event": "left", "time": 5, "node": "b", "room": "lobby", "user": {"id": "u"}})
        );
        assert_eq!(
            json("x e-3 9 17 5 8"),
            serde_json::json!({"id": "e-3", "event": "lost", "time": 9, "count": 17, "since": 5, "until": 8})
        );
        assert_eq!(
            json(r#"s e-4 9 "event":"open","session":"s-1""#),
            serde_json::json!({"id": "e-4", "event": "open", "time": 9, "session": "s-1"})
        );
    }

    #[test]
    fn what_others_wrote_there_is_refused() {
        for bad in [
            "",
            "c",
            "c e 1 E1 7 1 a9 lobby",
            "x e 1 2 3 ",
            "x e 1 2 3 +4",
            "j e x 1 a1 b{}",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()).err(), Some(Unreadable), "{bad}");
        }
        let record = Record::parse(b"c e 1 E1 7 1 a1 b- {}").expect("a record");
        assert_eq!(record.write_json(&mut String::new()), Err(Unreadable));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            room in ".{0,12}", node in "[a-z:. ]{1,8}", key in proptest::option::of(".{0,8}"),
            seq in any::<u64>(), joined in any::<bool>(),
        ) {
            let chat = What::Chat {
                epoch: "E", seq, node: &node, room: &room, key: key.as_deref(), envelope: r#"{"v":1}"#,
            };
            let presence = What::Presence { joined, node: &node, room: &room, user_json: "{}" };
            for what in [chat, presence] {
                let record = Record { id: "e-1", time_ms: seq, what };
                let text = record.to_text();
                prop_assert_eq!(Record::parse(text.as_bytes()), Ok(record.clone()));
            }
        }

        #[test]
        fn no_bytes_panic(text in "[cjlsx] [0-9e-]{1,3} ([0-9a-ü -]{0,6} ){0,7}.{0,9}") {
            let _ = Record::parse(text.as_bytes());
        }
    }
}
