//! Names of everything that is stored. Part of the layout: a change here needs another version in the prefix.
//!
//! `conclave:1:0:{503}m:lobby` is prefix, layout version, database, partition, kind, name. The tag in braces holds the
//! partition only, so that everything of a partition is in one slot and no text of a client can reach the tag.

use aws_lc_rs::digest;

use super::super::contract::RoomKey;

/// Version of names and of what they hold.
pub(super) const LAYOUT: u32 = 1;

/// The tag of what belongs to no room.
pub(super) const CONTROL_TAG: &str = "ctl";

/// A room that clients cannot name, one per shard, for the canary.
pub(super) const CANARY: &str = "\u{1}canary";

/// Makes names.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// `conclave:1:0:`
    prefix: String,
    /// `conclave:0:{ctl}layout`, whatever the layout is.
    layout: String,
    /// `conclave`
    name: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, db: i64) -> Self {
        Self {
            prefix: format!("{prefix}:{LAYOUT}:{db}:"),
            layout: format!("{prefix}:{db}:{{{CONTROL_TAG}}}layout"),
            name: prefix.to_owned(),
        }
    }

    /// What the rules of an ACL user must allow.
    pub(super) fn acl(&self) -> String {
        let name = &self.name;
        format!("~{name}:* &{name}:* +@all -@dangerous +info +role +config|get +client +cluster|slots +cluster|info")
    }

    /// Text: the version of the layout that is stored here.
    pub(super) fn layout(&self) -> &str {
        &self.layout
    }

    fn tagged(&self, partition: u16, kind: &str, rest: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut key = Vec::with_capacity(self.prefix.len() + kind.len() + rest.len() + 8);
        key.extend_from_slice(self.prefix.as_bytes());
        write!(key, "{{{partition}}}{kind}").expect("a Vec takes everything");
        key.extend_from_slice(rest);
        key
    }

    /// Hash: `e` epoch, `s` head, `r` replid, `t` lineage, `b` bytes in the log, `v` presence version.
    pub(super) fn meta(&self, room: &RoomKey) -> Vec<u8> {
        self.tagged(room.partition, "m:", room.name.as_bytes())
    }

    /// List: `epoch seq time envelope` per message, oldest first.
    pub(super) fn log(&self, room: &RoomKey) -> Vec<u8> {
        self.tagged(room.partition, "l:", room.name.as_bytes())
    }

    /// Text: `epoch seq` of the message that took this key.
    pub(super) fn dedupe(&self, room: &RoomKey, user: &str, key: &str) -> Vec<u8> {
        let parts = [room.name.as_bytes(), user.as_bytes(), key.as_bytes()];
        self.tagged(room.partition, "d:", hash(&parts).as_bytes())
    }

    /// Hash: user to `incarnation,… JSON`, while somebody is there.
    pub(super) fn users(&self, room: &RoomKey) -> Vec<u8> {
        self.tagged(room.partition, "u:", room.name.as_bytes())
    }

    /// Hash: `room\0user` that an incarnation holds in a partition, to nothing; an empty field has the number of the last
    /// call. Which incarnations have such a record is a set of kind `i`.
    pub(super) fn held(&self, partition: u16, incarnation: &str) -> Vec<u8> {
        self.tagged(partition, "n:", incarnation.as_bytes())
    }

    /// Tombstone of an incarnation in a partition.
    pub(super) fn tomb(&self, partition: u16, incarnation: &str) -> Vec<u8> {
        self.tagged(partition, "x:", incarnation.as_bytes())
    }

    /// List: records for a hook that are still to be told, oldest first.
    pub(super) fn outbox(&self, partition: u16, hook: &str) -> Vec<u8> {
        self.tagged(partition, "o:", hook.as_bytes())
    }

    /// Hash: how that list is told, see `lua/outbox.lua`.
    pub(super) fn outbox_state(&self, partition: u16, hook: &str) -> Vec<u8> {
        self.tagged(partition, "p:", hook.as_bytes())
    }

    /// Hash: sessions of an incarnation whose users are of a partition, to `since end`.
    pub(super) fn sessions(&self, partition: u16, incarnation: &str) -> Vec<u8> {
        self.tagged(partition, "s:", incarnation.as_bytes())
    }

    /// What precedes a room's name in `kind` of a partition, for scripts that make names themselves.
    pub(super) fn stem(&self, partition: u16, kind: &str) -> Vec<u8> {
        self.tagged(partition, kind, b"")
    }

    /// Channel of wake-ups, see [`super::payload`].
    pub(super) fn channel(&self, room: &RoomKey) -> Vec<u8> {
        self.tagged(room.partition, "c:", room.name.as_bytes())
    }

    /// A name in the control slot: `lease` (sorted set, incarnation to the end of its lease in ms of server time),
    /// `nodes` (hash, incarnation to what it says of itself), `tell` (hash,
    /// incarnation to what waits in the outboxes that it sees to), `log`, `rev`, `permit`.
    pub(super) fn control(&self, name: &str) -> Vec<u8> {
        format!("{}{{{CONTROL_TAG}}}{name}", self.prefix).into_bytes()
    }

    /// Hash: incarnation to `connections version` of a user.
    pub(super) fn tally(&self, user: &str) -> Vec<u8> {
        self.control(&format!("c:{}", hash(&[user.as_bytes()])))
    }

    /// A value that is used once.
    pub(super) fn once(&self, name: &str) -> Vec<u8> {
        self.control(&format!("t:{}", hash(&[name.as_bytes()])))
    }

    /// Reads a channel's name.
    pub(super) fn room_of<'a>(&self, channel: &'a [u8]) -> Option<(u16, &'a str)> {
        let channel = std::str::from_utf8(channel).ok()?;
        let rest = channel.strip_prefix(self.prefix.as_str())?.strip_prefix('{')?;
        let (partition, room) = rest.split_once("}c:")?;
        Some((partition.parse().ok()?, room))
    }
}

/// 128 bits of SHA-256 over the parts, each with its length before it, in hex.
fn hash(parts: &[&[u8]]) -> String {
    use std::fmt::Write as _;
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref()[..16]
        .iter()
        .fold(String::with_capacity(32), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes everything");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomKey {
        RoomKey::new(name.into())
    }

    #[test]
    fn names_are_part_of_the_layout() {
        let keys = Keys::new("conclave", 0);
        assert_eq!(keys.meta(&room("lobby")), b"conclave:1:0:{503}m:lobby");
        assert_eq!(keys.log(&room("}x")), b"conclave:1:0:{74}l:}x");
        assert_eq!(keys.control("lease"), b"conclave:1:0:{ctl}lease");
        assert_eq!(Keys::new("a", 5).layout(), "a:5:{ctl}layout");
    }

    #[test]
    fn a_channel_names_its_room_whatever_it_is_called() {
        let keys = Keys::new("conclave", 5);
        for name in ["lobby", "}x", "{a}b", "}c:", "a b", "ü"] {
            let room = room(name);
            assert_eq!(keys.room_of(&keys.channel(&room)), Some((room.partition, name)));
        }
        for foreign in ["", "conclave:1:0:{1}c:x", "conclave:1:5:{x}c:a", "conclave:1:5:{1}m:a"] {
            assert_eq!(keys.room_of(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn a_key_belongs_to_its_user_and_room() {
        let keys = Keys::new("conclave", 0);
        let lobby = room("lobby");
        assert_eq!(keys.dedupe(&lobby, "u", "k"), keys.dedupe(&lobby, "u", "k"));
        assert_ne!(keys.dedupe(&lobby, "uk", ""), keys.dedupe(&lobby, "u", "k"));
        assert_ne!(keys.dedupe(&lobby, "u", "k"), keys.dedupe(&room("other"), "u", "k"));
    }
}
