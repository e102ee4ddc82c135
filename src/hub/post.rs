//! What is for users rather than rooms, from any node to all: the letters of one hidden room ([`room::POST`]).
//!
//! So they have what chats have: one order, batches, retries that are kept once, repair of what a node missed. Every node
//! follows it from its start, and hands each letter to its shards instead of to members; nothing is kept here.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::limits::POST_AGE;
use crate::protocol::server;
use crate::shard::inbox::ToUser;
use crate::websocket::encoded::Frame;

/// In the id of the post, besides [`super::room::SHADOW_ID`].
pub const POST_ID: u64 = 1 << 62;

/// One letter, as the content of a chat in the log: `{"to":"ann","from":{…},"content":"hi"}`, or
/// `{"to":"ann","leave":"lobby"}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Letter<'a> {
    /// The user whom it is for.
    #[serde(borrow)]
    pub to: Cow<'a, str>,
    /// Whom the application speaks for, if anybody.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub from: Option<&'a RawValue>,
    /// What every connection of the user is to be told; `null` is something, too.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub content: Option<&'a RawValue>,
    /// The room that every connection of the user is to leave.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<Cow<'a, str>>,
}

/// Of itself serde takes `null` for nothing.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(from).map(Some)
}

impl<'a> Letter<'a> {
    /// Tells a user something.
    #[must_use]
    pub fn message(to: &'a str, from: Option<&'a RawValue>, content: &'a RawValue) -> Self {
        Self {
            to: to.into(),
            from,
            content: Some(content),
            leave: None,
        }
    }

    /// Takes a user out of a room.
    #[must_use]
    pub fn leave(to: &'a str, room: &'a str) -> Self {
        Self {
            to: to.into(),
            from: None,
            content: None,
            leave: Some(room.into()),
        }
    }

    /// As JSON.
    ///
    /// # Panics
    /// Never: there is nothing in it that is not text.
    #[must_use]
    pub fn seal(&self) -> String {
        serde_json::to_string(self).expect("strings and raw JSON are JSON")
    }

    /// Reads one of another node; none if it is nothing that this version knows.
    #[must_use]
    pub fn open(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// What each shard is to do; none if the letter is too old, or says nothing that this version knows.
    #[must_use]
    pub fn read(&self, time_ms: u64, now_ms: u64) -> Option<ToUser> {
        if u128::from(now_ms.saturating_sub(time_ms)) > POST_AGE.as_millis() {
            return None;
        }
        let user: Arc<str> = (&*self.to).into();
        match (&self.leave, self.content) {
            (Some(room), _) => Some(ToUser::Leave {
                user,
                room: (&**room).into(),
            }),
            (None, Some(content)) => {
                let message = server::Message {
                    from_json: self.from.map(RawValue::get),
                    content: content.get(),
                    time_ms,
                };
                Some(ToUser::Message {
                    user,
                    frame: Frame::text(|out| message.write(out)),
                })
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let from = raw(r#"{"id":"app"}"#);
        let sealed = Letter::message("an\"n", Some(from), raw(r#"{"a": 1.50}"#)).seal();
        let letter = Letter::open(&sealed).expect("readable");
        let Some(ToUser::Message { user, frame }) = letter.read(7, 7) else {
            panic!("{sealed}")
        };
        assert_eq!(&*user, "an\"n");
        assert_eq!(
            frame.payload(),
            br#"{"type":"message","from":{"id":"app"},"content":{"a": 1.50},"time":7}"#
        );
    }

    #[test]
    fn a_message_that_says_null_is_one() {
        let sealed = Letter::message("ann", None, raw("null")).seal();
        assert_eq!(sealed, r#"{"to":"ann","content":null}"#);
        let read = Letter::open(&sealed).and_then(|letter| letter.read(7, 7));
        let Some(ToUser::Message { frame, .. }) = read else {
            panic!("{sealed}")
        };
        assert_eq!(frame.payload(), br#"{"type":"message","content":null,"time":7}"#);
    }

    #[test]
    fn a_leave_names_user_and_room() {
        let sealed = Letter::leave("ann", "team/42").seal();
        assert_eq!(sealed, r#"{"to":"ann","leave":"team/42"}"#);
        let read = Letter::open(&sealed).and_then(|letter| letter.read(1, 1));
        assert!(matches!(read, Some(ToUser::Leave { user, room }) if &*user == "ann" && &*room == "team/42"));
    }

    #[test]
    fn what_is_old_or_unknown_is_for_nobody() {
        let sealed = Letter::leave("ann", "lobby").seal();
        let letter = Letter::open(&sealed).expect("readable");
        assert!(letter.read(1_000, 61_000).is_some() && letter.read(1_000, 61_001).is_none());
        // A clock that is behind the teller's.
        assert!(letter.read(1_000, 0).is_some());
        for bad in ["", "1", "{}", r#"{"to":1}"#] {
            assert!(Letter::open(bad).is_none(), "{bad}");
        }
        let later = Letter::open(r#"{"to":"ann","colour":"red"}"#).expect("readable");
        assert!(later.read(1, 1).is_none());
    }
}
