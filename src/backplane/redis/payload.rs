//! What goes over a room's channel, and one line of its log.
//!
//! ```text
//! b <epoch> <seq> <time ms> <bytes> <envelope>...                     messages with this seq and the following ones
//! p <follows> <version> <+|-> <time ms> <bytes of user> <user><json> somebody came or went
//! <epoch> <seq> <time ms> <envelope>                                 in the log
//! ```
//!
//! Numbers are decimal. Lua writes more than fourteen digits only with `string.format('%.0f')`.

use std::sync::Arc;

use bytes::Bytes;

use super::super::contract::{Entry, Position, PresenceEvent};

/// What a channel brought.
#[derive(Debug)]
pub(super) enum Payload {
    /// In order, at least one.
    Messages(Vec<Entry>),
    Presence(PresenceEvent),
}

/// Not one of ours, or of a version that this build cannot read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Payload {
    pub(super) fn parse(bytes: Bytes) -> Result<Self, Unreadable> {
        let mut words = Words(bytes);
        match &*words.next()? {
            b"b" => words.messages().map(Self::Messages),
            b"p" => words.presence().map(Self::Presence),
            _ => Err(Unreadable),
        }
    }
}

/// Reads one line of a log. Seqs of a log are dense.
pub(super) fn log_entry(bytes: Bytes) -> Result<Entry, Unreadable> {
    let mut words = Words(bytes);
    let position = words.position()?;
    Ok(Entry {
        follows: position.seq.checked_sub(1).ok_or(Unreadable)?,
        position,
        time_ms: words.number()?,
        envelope: words.0,
    })
}

/// Takes words that end with a space off the front.
struct Words(Bytes);

impl Words {
    fn next(&mut self) -> Result<Bytes, Unreadable> {
        let at = memchr::memchr(b' ', &self.0).ok_or(Unreadable)?;
        let word = self.0.split_to(at);
        drop(self.0.split_to(1));
        Ok(word)
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        number(&self.next()?).ok_or(Unreadable)
    }

    fn position(&mut self) -> Result<Position, Unreadable> {
        let epoch = text(&self.next()?)?;
        let seq = self.number()?;
        Ok(Position { epoch, seq })
    }

    fn messages(&mut self) -> Result<Vec<Entry>, Unreadable> {
        let mut position = self.position()?;
        let time_ms = self.number()?;
        let mut entries = Vec::with_capacity(1);
        loop {
            let envelope = self.sized()?;
            entries.push(Entry {
                follows: position.seq.checked_sub(1).ok_or(Unreadable)?,
                position: position.clone(),
                time_ms,
                envelope,
            });
            if self.0.is_empty() {
                return Ok(entries);
            }
            position.seq = position.seq.checked_add(1).ok_or(Unreadable)?;
        }
    }

    /// A count of bytes, and so many of them.
    fn sized(&mut self) -> Result<Bytes, Unreadable> {
        let bytes = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        if bytes > self.0.len() {
            return Err(Unreadable);
        }
        Ok(self.0.split_to(bytes))
    }

    fn presence(&mut self) -> Result<PresenceEvent, Unreadable> {
        let (follows, version) = (self.number()?, self.number()?);
        let joined = match &*self.next()? {
            b"+" => true,
            b"-" => false,
            _ => return Err(Unreadable),
        };
        let time_ms = self.number()?;
        let user = self.sized()?;
        Ok(PresenceEvent {
            follows,
            version,
            joined,
            user: text(&user)?,
            json: text(&self.0)?,
            time_ms,
        })
    }
}

fn text(bytes: &[u8]) -> Result<Arc<str>, Unreadable> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| Unreadable)
}

/// A decimal number and nothing else.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.starts_with(|c: char| c.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_and_log_lines_are_read() {
        let one = Payload::parse("b E1 7 1700000000000 8 {\"v\": 1}".into());
        let Ok(Payload::Messages(mut entries)) = one else {
            panic!("a message");
        };
        assert_eq!(entries.len(), 1);
        let entry = entries.remove(0);
        assert_eq!(
            (&*entry.position.epoch, entry.position.seq, entry.follows),
            ("E1", 7, 6)
        );
        assert_eq!(
            (entry.time_ms, &*entry.envelope),
            (1_700_000_000_000, &b"{\"v\": 1}"[..])
        );
        assert_eq!(log_entry("E1 7 1700000000000 {\"v\": 1}".into()), Ok(entry));
        assert_eq!(log_entry("E1 0 1700000000000 {}".into()), Err(Unreadable));
    }

    #[test]
    fn messages_that_came_together_are_read_in_order() {
        let Ok(Payload::Messages(entries)) = Payload::parse("b E1 7 1700000000000 3 1 22 {}0 ".into()) else {
            panic!("messages");
        };
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.position.seq, entry.follows, &*entry.envelope))
            .collect();
        assert_eq!(found, [(7, 6, &b"1 2"[..]), (8, 7, b"{}"), (9, 8, b"")]);
        for cut in [
            "b E1 7 1700000000000 ",
            "b E1 7 1700000000000 4 1 2",
            "b E1 7 1700000000000 3 1 22 {",
            "b E1 0 1700000000000 1 x",
            "b E1 18446744073709551615 1700000000000 1 x1 y",
        ] {
            assert_eq!(Payload::parse(cut.into()).err(), Some(Unreadable), "{cut}");
        }
    }

    #[test]
    fn presence_is_read_whatever_users_are_called() {
        let text = "p 5 1700000000000001 + 1700000000000 4 a b {\"id\":\"a b \"}";
        let Ok(Payload::Presence(event)) = Payload::parse(text.into()) else {
            panic!("presence");
        };
        assert_eq!(
            (event.follows, event.version, event.joined),
            (5, 1_700_000_000_000_001, true)
        );
        assert_eq!((&*event.user, &*event.json), ("a b ", "{\"id\":\"a b \"}"));
    }

    proptest! {
        #[test]
        fn no_bytes_from_the_network_panic(bytes in "[bp] ([0-9+a-z -]{0,24} ){0,7}.{0,20}") {
            let _ = Payload::parse(Bytes::from(bytes.clone()));
            let _ = log_entry(Bytes::from(bytes));
        }
    }
}
