//! What holds in which room: the most specific `[[rooms]]` entry laid over what holds in all. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Config, RoomClass, Who};

/// One class as it holds, with everything that its entry leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Among all classes; 0 is that of the rooms that no pattern matches.
    pub index: usize,
    /// Empty in that one.
    pub pattern: Box<str>,
    pub join: Who,
    pub chat: Who,
    pub list: Who,
    pub history: Who,
    /// Whether guests may enter.
    pub guests: bool,
    /// Messages kept per room.
    pub history_messages: usize,
    /// How long a message is kept.
    pub history_age: Duration,
    /// Bytes kept per room.
    pub history_bytes: usize,
    /// How long a `key` is remembered.
    pub key_window: Duration,
    /// How long a flush may wait for more; 0 sends at once.
    pub flush_window: Duration,
    /// Users named in `list`.
    pub users_shown: usize,
    /// Connections in one room on this node; 0 means no limit.
    pub members_max: usize,
    /// Chats in one room on this node; 0 means no limit.
    pub messages_per_second: u32,
    /// Bytes of their content; 0 means no limit.
    pub bytes_per_second: u64,
}

/// All classes. A clone is a reference count.
#[derive(Debug, Clone)]
pub struct Classes(Arc<Table>);

#[derive(Debug)]
struct Table {
    /// By `Class::index`.
    all: Vec<Arc<Class>>,
    /// By the room's whole name.
    exact: HashMap<Box<str>, Arc<Class>>,
    /// By what the names begin with.
    prefixes: HashMap<Box<str>, Arc<Class>>,
    /// Bytes of those beginnings, longest first, each once: so many look-ups at most, however many patterns there are.
    lengths: Vec<usize>,
}

impl Classes {
    /// The classes of a configuration that has been checked.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let rest = Arc::new(rest(config));
        let mut table = Table {
            all: vec![Arc::clone(&rest)],
            exact: HashMap::new(),
            prefixes: HashMap::new(),
            lengths: Vec::new(),
        };
        for (index, entry) in config.rooms.iter().enumerate() {
            let class = Arc::new(class(index + 1, entry, &rest, config.session.enabled));
            table.all.push(Arc::clone(&class));
            match entry.pattern.strip_suffix('*') {
                Some(prefix) => {
                    table.lengths.push(prefix.len());
                    table.prefixes.insert(prefix.into(), class);
                }
                None => {
                    table.exact.insert(entry.pattern.as_str().into(), class);
                }
            }
        }
        table.lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
        table.lengths.dedup();
        Self(Arc::new(table))
    }

    /// The class of a room, by the name that clients say: that of its own name, else that of the longest beginning. Rooms
    /// that no client can name match no pattern.
    #[must_use]
    pub fn of(&self, room: &str) -> &Arc<Class> {
        let table = &*self.0;
        if crate::protocol::room::is_shadow(room) {
            return self.rest();
        }
        let prefixed = || {
            let mut beginnings = table.lengths.iter().filter_map(|length| room.get(..*length));
            beginnings.find_map(|beginning| table.prefixes.get(beginning))
        };
        table.exact.get(room).or_else(prefixed).unwrap_or_else(|| self.rest())
    }

    /// That of the rooms that no pattern matches.
    #[must_use]
    pub fn rest(&self) -> &Arc<Class> {
        &self.0.all[0]
    }

    /// All of them, by `Class::index`.
    #[must_use]
    pub fn all(&self) -> &[Arc<Class>] {
        &self.0.all
    }
}

/// What holds where no pattern matches.
fn rest(config: &Config) -> Class {
    Class {
        index: 0,
        pattern: "".into(),
        join: Who::All,
        chat: Who::All,
        list: Who::All,
        history: Who::All,
        guests: true,
        history_messages: config.history.messages,
        history_age: config.history.age,
        history_bytes: config.history.bytes,
        key_window: config.room.key_window,
        flush_window: config.room.flush_window,
        users_shown: config.room.users_shown,
        members_max: config.limits.room_members,
        messages_per_second: config.limits.room_messages_per_second,
        bytes_per_second: config.limits.room_bytes_per_second,
    }
}

/// `can_be_guest`: without `[session]` nobody is a guest, whatever a user's id looks like.
fn class(index: usize, entry: &RoomClass, rest: &Class, can_be_guest: bool) -> Class {
    Class {
        index,
        pattern: entry.pattern.as_str().into(),
        join: entry.join,
        chat: entry.chat,
        list: entry.list,
        history: entry.history,
        guests: entry.guests || !can_be_guest,
        history_messages: entry.history_messages.unwrap_or(rest.history_messages),
        history_age: entry.history_age.unwrap_or(rest.history_age),
        history_bytes: entry.history_bytes.unwrap_or(rest.history_bytes),
        key_window: entry.key_window.unwrap_or(rest.key_window),
        flush_window: entry.flush_window.unwrap_or(rest.flush_window),
        users_shown: entry.users_shown.unwrap_or(rest.users_shown),
        members_max: entry.members.unwrap_or(rest.members_max),
        messages_per_second: entry.messages_per_second.unwrap_or(rest.messages_per_second),
        bytes_per_second: entry.bytes_per_second.unwrap_or(rest.bytes_per_second),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::default_config;

    fn classes(patterns: &[&str]) -> Classes {
        let mut config = default_config();
        config.rooms = patterns.iter().map(|pattern| RoomClass::of(pattern)).collect();
        Classes::new(&config)
    }

    #[test]
    fn the_most_specific_pattern_decides_whatever_the_order() {
        let mut patterns = ["*", "team/*", "team/a", "team/a*", "team/ab*", "lobby"];
        for _ in 0..patterns.len() {
            patterns.rotate_left(1);
            let classes = classes(&patterns);
            for (room, expected) in [
                ("lobby", "lobby"),
                ("lobby2", "*"),
                ("team", "*"),
                ("team/", "team/*"),
                ("team/b", "team/*"),
                ("team/a", "team/a"),
                ("team/ac", "team/a*"),
                ("team/ab", "team/ab*"),
                ("team/abc", "team/ab*"),
            ] {
                assert_eq!(&*classes.of(room).pattern, expected, "{room}");
            }
        }
        assert_eq!(classes(&["team/*"]).of("lobby").index, 0);
    }

    #[test]
    fn what_an_entry_leaves_out_is_as_in_all_rooms() {
        let mut config = default_config();
        config.history.messages = 7;
        config.limits.room_members = 5;
        config.rooms = vec![
            RoomClass {
                history_messages: Some(0),
                key_window: Some(Duration::from_secs(3)),
                ..RoomClass::of("a*")
            },
            RoomClass {
                members: Some(0),
                ..RoomClass::of("ab*")
            },
        ];
        let classes = Classes::new(&config);
        let of = |room: &str| {
            let class = classes.of(room);
            (class.history_messages, class.key_window.as_secs(), class.members_max)
        };
        assert_eq!(of("a"), (0, 3, 5));
        assert_eq!(of("ab"), (7, 120, 0), "nothing comes from the less specific one");
        assert_eq!(of("b"), (7, 120, 5));
    }

    /// The rule as it is written down: of the patterns that match, the one of the longest literal, whole names first.
    fn naive<'a>(patterns: &'a [String], room: &str) -> &'a str {
        let mut best: Option<(usize, bool, &str)> = None;
        for pattern in patterns {
            let (length, is_exact, matches) = match pattern.strip_suffix('*') {
                Some(literal) => (literal.len(), false, room.starts_with(literal)),
                None => (pattern.len(), true, pattern == room),
            };
            let is_better = best.is_none_or(|(than, exact, _)| (length, is_exact) > (than, exact));
            if matches && is_better {
                best = Some((length, is_exact, pattern));
            }
        }
        best.map_or("", |(_, _, pattern)| pattern)
    }

    proptest! {
        #[test]
        fn classes_are_those_of_a_naive_reading(
            patterns in prop::collection::btree_set("[ab/é]{0,4}\\*?", 0..12),
            rooms in prop::collection::vec("[ab/é]{1,6}", 1..20),
        ) {
            let patterns: Vec<String> = patterns.into_iter().filter(|pattern| !pattern.is_empty()).collect();
            let classes = classes(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
            for room in &rooms {
                prop_assert_eq!(&*classes.of(room).pattern, naive(&patterns, room), "{}", room);
            }
        }
    }
}
