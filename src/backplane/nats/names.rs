//! What everything stored is called. Part of the layout: changed only together with [`LAYOUT`]. Pure.
//!
//! ```text
//! conclave.1.c.<stream>.<room>              messages           → live …l.<stream>.<room>.m
//! conclave.1.c.<stream>.-<node>             canaries           → live …l.<stream>.-<node>.m
//! conclave.1.u.<stream>.<room>.<inc>.<user> who is where       → live …l.<stream>.<room>.p.<inc>.<user>
//! conclave.1.u.<stream>.-c.<inc>.<user>     connections of a user
//! conclave.1.r.<room>                       rooms that exist
//! conclave.1.s.g.<stream>                   who numbered what  → live …w.g.<stream>
//! conclave.1.s.n.<inc>, …s.x.<inc>          leases, burials    → live …w.n.<inc>, …w.x.<inc>
//! conclave.1.s.f.<inc>                      what nodes say of themselves
//! conclave.1.s.r.<subject>                  revocations
//! conclave.1.k.e.<id>, …k.n.<node>          control, canaries  → live …y.e.<id>, …y.n.<node>
//! conclave.1.o.<name>                       to be used once
//! ```
//!
//! Rooms and names are base32, users and subjects of revocations digests: neither can hold what a NATS subject may not.

use aws_lc_rs::digest::{SHA256, digest};

use crate::backplane::contract::{RoomKey, Subject};

/// Version of the layout.
const LAYOUT: u32 = 1;

/// Streams over which rooms are spread, by partition: each has one core of one server to itself. Part of the layout.
pub(super) const STREAMS: usize = 8;

/// Stands for a room where connections are counted.
const TALLIES: &str = "-c";

/// Whether a subject is that of a count, and no place in a room.
pub(super) fn is_tally(subject: &str) -> bool {
    subject.rsplit('.').nth(2) == Some(TALLIES)
}

/// Which of the [`STREAMS`] a partition is in.
pub(super) const fn stream_of(partition: u16) -> usize {
    partition as usize % STREAMS
}

/// Makes subjects and names of streams.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// `conclave.1`
    subjects: String,
    /// `conclave-1`; a stream's name has no dots.
    streams: String,
}

impl Names {
    /// `prefix` is checked by the configuration: letters, digits, `_`, `-` and dots.
    pub fn new(prefix: &str) -> Self {
        Self {
            subjects: format!("{prefix}.{LAYOUT}"),
            streams: format!("{}-{LAYOUT}", prefix.replace('.', "=")),
        }
    }

    /// Of a stream: `rooms-3`, `users-3`, `known`, `state`, `log`, `once`.
    pub fn stream(&self, what: &str) -> String {
        format!("{}-{what}", self.streams)
    }

    pub fn rooms_stream(&self, stream: usize) -> String {
        format!("{}-rooms-{stream}", self.streams)
    }

    pub fn users_stream(&self, stream: usize) -> String {
        format!("{}-users-{stream}", self.streams)
    }

    /// A subject below the prefix.
    pub fn subject(&self, rest: &str) -> String {
        format!("{}.{rest}", self.subjects)
    }

    /// Where a room's messages are stored.
    pub fn messages(&self, room: &RoomKey) -> String {
        let stream = stream_of(room.partition);
        format!("{}.c.{stream}.{}", self.subjects, base32(room.name.as_bytes()))
    }

    /// Where this node's canaries are stored. No room is written with a `-`.
    pub fn canary(&self, stream: usize, node: &str) -> String {
        format!("{}.c.{stream}.-{node}", self.subjects)
    }

    /// What tells of a room: its messages at `….m`, its users at `….p.<inc>.<user>`.
    pub fn live(&self, room: &RoomKey) -> String {
        let stream = stream_of(room.partition);
        format!("{}.l.{stream}.{}.>", self.subjects, base32(room.name.as_bytes()))
    }

    /// All who are in a room, wherever.
    pub fn users(&self, room: &RoomKey) -> String {
        let stream = stream_of(room.partition);
        format!("{}.u.{stream}.{}.>", self.subjects, base32(room.name.as_bytes()))
    }

    /// One user in a room, through one incarnation.
    pub fn place(&self, room: &RoomKey, incarnation: &str, user: &str) -> String {
        let stream = stream_of(room.partition);
        let room = base32(room.name.as_bytes());
        format!(
            "{}.u.{stream}.{room}.{incarnation}.{}",
            self.subjects,
            hashed(user.as_bytes())
        )
    }

    /// Everybody held by one incarnation in one stream.
    pub fn held(&self, stream: usize, incarnation: &str) -> String {
        format!("{}.u.{stream}.*.{incarnation}.*", self.subjects)
    }

    /// How many connections a user has through one incarnation. No room is written with a `-`.
    pub fn tally(&self, incarnation: &str, user: &str) -> String {
        let stream = stream_of(crate::backplane::partition::of(user));
        format!(
            "{}.u.{stream}.{TALLIES}.{incarnation}.{}",
            self.subjects,
            hashed(user.as_bytes())
        )
    }

    /// Where those are.
    pub fn tallies_stream(&self, user: &str) -> String {
        self.users_stream(stream_of(crate::backplane::partition::of(user)))
    }

    /// That a room exists though nothing is kept of it.
    pub fn known(&self, room: &RoomKey) -> String {
        format!("{}.r.{}", self.subjects, base32(room.name.as_bytes()))
    }

    pub fn generation(&self, stream: usize) -> String {
        format!("{}.s.g.{stream}", self.subjects)
    }

    pub fn lease(&self, incarnation: &str) -> String {
        format!("{}.s.n.{incarnation}", self.subjects)
    }

    /// What an incarnation says of itself.
    pub fn facts(&self, incarnation: &str) -> String {
        format!("{}.s.f.{incarnation}", self.subjects)
    }

    pub fn burial(&self, incarnation: &str) -> String {
        format!("{}.s.x.{incarnation}", self.subjects)
    }

    pub fn revocation(&self, subject: &Subject) -> String {
        let (kind, value) = match subject {
            Subject::User(value) => ('u', value),
            Subject::Session(value) => ('s', value),
            Subject::Token(value) => ('t', value),
        };
        format!("{}.s.r.{kind}{}", self.subjects, hashed(value.as_bytes()))
    }

    pub fn once(&self, name: &str) -> String {
        format!("{}.o.{}", self.subjects, hashed(name.as_bytes()))
    }
}

/// The id by which a stream knows a message again: of room, user and key. Lengths keep `("a", "bc")` from `("ab", "c")`.
pub(super) fn message_id(room: &str, user: &str, key: &str) -> String {
    let whole = format!("{}:{}:{room}{user}{key}", room.len(), user.len());
    hashed(whole.as_bytes())
}

/// The first 160 bits of SHA-256: nobody finds two texts with one digest.
pub(super) fn hashed(bytes: &[u8]) -> String {
    base32(&digest(&SHA256, bytes).as_ref()[..20])
}

/// RFC 4648 section 6, in lower case and without padding: case matters in a subject, and nothing else may be in one.
pub(super) fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut bits, mut have) = (0_u32, 0);
    for &byte in bytes {
        bits = (bits << 8) | u32::from(byte);
        have += 8;
        while have >= 5 {
            have -= 5;
            out.push(char::from(DIGITS[(bits >> have) as usize & 31]));
        }
        bits &= 0xff;
    }
    if have > 0 {
        out.push(char::from(DIGITS[(bits << (5 - have)) as usize & 31]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10, and what no room may do to a subject.
    #[test]
    fn any_room_has_a_subject() {
        for (text, expected) in [
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(text.as_bytes()), expected);
        }
        let names = Names::new("team.a");
        for room in ["}x", "a.b", "> *", "ä🦀", &"x".repeat(128)] {
            let subject = names.messages(&RoomKey::new(room.into()));
            assert!(subject.starts_with("team.a.1.c."), "{subject}");
            assert_eq!(subject.split('.').count(), 6, "{subject}");
            assert!(subject.len() < 256, "{subject}");
        }
        assert_eq!(names.stream("log"), "team=a-1-log");
    }

    #[test]
    fn ids_tell_room_user_and_key_apart() {
        assert_eq!(message_id("r", "u", "k"), message_id("r", "u", "k"));
        assert_ne!(message_id("r", "uk", ""), message_id("r", "u", "k"));
        assert_ne!(message_id("ru", "", "k"), message_id("r", "u", "k"));
        assert_ne!(message_id("1:", "u", "k"), message_id("1", ":u", "k"));
    }
}
