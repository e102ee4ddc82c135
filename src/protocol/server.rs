//! What the server says: every frame of PROTOCOL.md section 3 as JSON text.
//!
//! `write` appends one whole object. Pieces that are JSON already, made once and used often, are named `…_json` and
//! are trusted; everything else is quoted here. What is absent is left out, never `null`.

mod object;
#[cfg(test)]
mod tests;

use serde_json::value::RawValue;

use super::client::Ref;
use super::error::ErrorCode;
use object::Object;

/// The version that `connected` names.
pub const PROTOCOL_VERSION: u64 = 1;

/// `text` as a JSON string, with its quotes.
pub fn quote(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    object::push_text(&mut out, text);
    into_text(out)
}

fn into_text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("only whole strings were written")
}

/// `{"id":"u7","name":"Ann","info":{…}}`
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// The `sub` of the token, with its issuer's prefix.
    pub id: &'a str,
    /// For people.
    pub name: Option<&'a str>,
    /// The small public object of the token.
    pub info: Option<&'a RawValue>,
}

impl User<'_> {
    /// The object, for the `user_json`, `from_json` and `users_json` of frames.
    pub fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(64);
        Object::open(&mut out)
            .text("id", self.id)
            .text("name", self.name)
            .json("info", self.info.map(RawValue::get))
            .close();
        into_text(out)
    }
}

/// `{"type":"connected","protocol":1,"session":"s-9f…","user":{…},"heartbeat":30,"expires":1767225600,"kept":"memory",`
/// `"limits":{"message_bytes":65536,"rooms":128,"users_shown":100,"messages_per_second":0}}`
#[derive(Debug, Clone, Copy)]
pub struct Connected<'a> {
    /// The id of this connection.
    pub session: &'a str,
    /// Who it is.
    pub user_json: &'a str,
    /// The heartbeat interval, in seconds.
    pub heartbeat_s: u64,
    /// When the token expires, in seconds since the Unix epoch; absent if never.
    pub expires: Option<u64>,
    /// What an `ok` to a `chat` is worth: `memory`, `async`, `disk` or `replica`.
    pub kept: &'a str,
    /// Largest message, in bytes; 0 is no limit.
    pub message_bytes: usize,
    /// Rooms that this connection may be in; 0 is no limit.
    pub rooms: usize,
    /// Users that a `list` names.
    pub users_shown: usize,
    /// Messages per second; 0 is no limit.
    pub messages_per_second: u32,
}

impl Connected<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "connected")
            .number("protocol", PROTOCOL_VERSION)
            .text("session", self.session)
            .json("user", self.user_json)
            .number("heartbeat", self.heartbeat_s)
            .number("expires", self.expires)
            .text("kept", self.kept)
            .object("limits", |limits| {
                limits
                    .count("message_bytes", self.message_bytes)
                    .count("rooms", self.rooms)
                    .count("users_shown", self.users_shown)
                    .number("messages_per_second", u64::from(self.messages_per_second))
            })
            .close();
    }
}

/// `{"type":"list","ref":1,"room":"lobby","users":[…],"count":2,"epoch":"e1","seq":41,"as_of":1767225600000,"recovered":true}`
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// Of the `join` or `list`.
    pub reference: Option<Ref<'a>>,
    /// The quoted name.
    pub room_json: &'a str,
    /// User objects with commas between them; may be empty.
    pub users_json: &'a str,
    /// Users in the room, exactly.
    pub count: usize,
    /// Who numbers the chats.
    pub epoch: &'a str,
    /// The room's head; with `recovered: true` where the replay will end.
    pub seq: u64,
    /// When presence was last known to be right, in ms since the Unix epoch.
    pub as_of_ms: u64,
    /// Only for a `join` with `since`: whether what was missed follows.
    pub recovered: Option<bool>,
}

impl List<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.room_json.len() + self.users_json.len() + 160);
        Object::typed(out, "list")
            .reference(self.reference)
            .json("room", self.room_json)
            .array("users", [self.users_json.as_bytes()])
            .count("count", self.count)
            .text("epoch", self.epoch)
            .number("seq", self.seq)
            .number("as_of", self.as_of_ms)
            .flag("recovered", self.recovered)
            .close();
    }
}

/// `{"type":"join","room":"lobby","user":{…},"time":1767225600000}`, or `left`.
#[derive(Debug, Clone, Copy)]
pub struct Presence<'a> {
    /// `join` if the user's first connection came, `left` if the last one went.
    pub joined: bool,
    /// The quoted name.
    pub room_json: &'a str,
    /// Who.
    pub user_json: &'a str,
    /// When, in ms since the Unix epoch.
    pub time_ms: u64,
}

impl Presence<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, if self.joined { "join" } else { "left" })
            .json("room", self.room_json)
            .json("user", self.user_json)
            .number("time", self.time_ms)
            .close();
    }
}

/// `{"type":"count","room":"lobby","count":12345}`
#[derive(Debug, Clone, Copy)]
pub struct Count<'a> {
    /// The quoted name.
    pub room_json: &'a str,
    /// Users in the room.
    pub count: usize,
}

impl Count<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "count")
            .json("room", self.room_json)
            .count("count", self.count)
            .close();
    }
}

/// `{"type":"chat","room":"lobby","seq":42,"epoch":"e2","from":{…},"content":"hi","time":1767225600000}`
#[derive(Debug, Clone, Copy)]
pub struct Chat<'a> {
    /// The quoted name.
    pub room_json: &'a str,
    /// Its number within the epoch.
    pub seq: u64,
    /// Only in the first chat of an epoch.
    pub epoch: Option<&'a str>,
    /// The sender.
    pub from_json: &'a str,
    /// The JSON that the sender wrote.
    pub content: &'a str,
    /// When the server took it, in ms since the Unix epoch.
    pub time_ms: u64,
}

impl Chat<'_> {
    /// Appends the frame. Once per broadcast, so it makes room for itself at once.
    pub fn write(&self, out: &mut Vec<u8>) {
        let given = self.room_json.len() + self.from_json.len() + self.content.len();
        out.reserve(given + self.epoch.map_or(0, str::len) + 128);
        Object::typed(out, "chat")
            .json("room", self.room_json)
            .number("seq", self.seq)
            .text("epoch", self.epoch)
            .json("from", self.from_json)
            .json("content", self.content)
            .number("time", self.time_ms)
            .close();
    }
}

/// `{"type":"history","ref":1,"room":"lobby","epoch":"e2","messages":[…],"first":7,"more":false}`
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Of the request.
    pub reference: Option<Ref<'a>>,
    /// The quoted name.
    pub room_json: &'a str,
    /// The newest epoch.
    pub epoch: &'a str,
    /// The JSON text of each `chat`, ascending.
    pub messages: &'a [&'a [u8]],
    /// The oldest `seq` that is kept.
    pub first: u64,
    /// Whether there are more in the direction that was asked for.
    pub more: bool,
}

impl History<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.messages.iter().map(|chat| chat.len() + 1).sum::<usize>() + self.room_json.len() + 160);
        Object::typed(out, "history")
            .reference(self.reference)
            .json("room", self.room_json)
            .text("epoch", self.epoch)
            .array("messages", self.messages.iter().copied())
            .number("first", self.first)
            .flag("more", self.more)
            .close();
    }
}

/// `{"type":"message","from":{…},"content":"hi","time":1767225600000}`
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The user that the application speaks for, if any.
    pub from_json: Option<&'a str>,
    /// The JSON that the application wrote.
    pub content: &'a str,
    /// When the server took it, in ms since the Unix epoch.
    pub time_ms: u64,
}

impl Message<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "message")
            .json("from", self.from_json)
            .json("content", self.content)
            .number("time", self.time_ms)
            .close();
    }
}

/// `{"type":"reply","ref":7,"data":{…}}`: what the application answered to a `call`.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Of the request.
    pub reference: Ref<'a>,
    /// The JSON that the application wrote.
    pub data: &'a str,
}

impl Reply<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.data.len() + 96);
        Object::typed(out, "reply")
            .reference(self.reference)
            .json("data", self.data)
            .close();
    }
}

/// Why a client no longer stands where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// What it lacks is no longer in history.
    Trimmed,
    /// A tail was lost.
    Rewound,
    /// Nothing in common.
    Epoch,
}

impl ResetReason {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Rewound => "rewound",
            Self::Epoch => "epoch",
        }
    }
}

/// `{"type":"reset","room":"lobby","epoch":"e2","seq":40,"reason":"rewound"}`
#[derive(Debug, Clone, Copy)]
pub struct Reset<'a> {
    /// The quoted name.
    pub room_json: &'a str,
    /// Where the client stands now.
    pub epoch: &'a str,
    /// Where the client stands now; the next chat is its successor.
    pub seq: u64,
    /// Why.
    pub reason: ResetReason,
}

impl Reset<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "reset")
            .json("room", self.room_json)
            .text("epoch", self.epoch)
            .number("seq", self.seq)
            .text("reason", self.reason.as_str())
            .close();
    }
}

/// Why a client is no longer in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedReason {
    /// The server API removed the user.
    Kicked,
    /// The new token does not grant the room.
    Grant,
    /// The room was closed.
    Closed,
}

impl RemovedReason {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Grant => "grant",
            Self::Closed => "closed",
        }
    }
}

/// `{"type":"removed","room":"lobby","reason":"grant"}`
#[derive(Debug, Clone, Copy)]
pub struct Removed<'a> {
    /// The quoted name.
    pub room_json: &'a str,
    /// Why.
    pub reason: RemovedReason,
}

impl Removed<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "removed")
            .json("room", self.room_json)
            .text("reason", self.reason.as_str())
            .close();
    }
}

/// The `ok`: `{"type":"ok","ref":1}`, after an `auth` with `expires`, after a `chat` with `room`, `epoch` and `seq`.
///
/// Not named `Ok`, which would hide `Result`'s.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    /// Of the request; without one there is no `ok`.
    pub reference: Ref<'a>,
    /// After an `auth`: when the new token expires, in seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// After a `chat`: where it is.
    pub kept: Option<Kept<'a>>,
}

/// Where an accepted `chat` is.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The quoted name.
    pub room_json: &'a str,
    /// Who numbered it.
    pub epoch: &'a str,
    /// Its number; of a retry, the first one's.
    pub seq: u64,
}

impl Done<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "ok")
            .reference(self.reference)
            .number("expires", self.expires)
            .json("room", self.kept.map(|kept| kept.room_json))
            .text("epoch", self.kept.map(|kept| kept.epoch))
            .number("seq", self.kept.map(|kept| kept.seq))
            .close();
    }
}

/// `{"type":"error","ref":1,"code":"rate_limited","message":"…","retry_after_ms":250}`
#[derive(Debug, Clone, Copy)]
pub struct Error<'a> {
    /// Of the request, if it could be read.
    pub reference: Option<Ref<'a>>,
    /// For a program.
    pub code: ErrorCode,
    /// For a person.
    pub message: &'a str,
    /// A word that says more than the code: of a refused `auth` one of PROTOCOL.md section 1.
    pub reason: Option<&'a str>,
    /// With `rate_limited`: when to try again, in ms.
    pub retry_after_ms: Option<u64>,
}

impl Error<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "error")
            .reference(self.reference)
            .text("code", self.code.as_str())
            .text("message", self.message)
            .text("reason", self.reason)
            .number("retry_after_ms", self.retry_after_ms)
            .close();
    }
}

/// `{"type":"pong","ref":1,"time":1767225600000}`
#[derive(Debug, Clone, Copy)]
pub struct Pong<'a> {
    /// Of the `ping`.
    pub reference: Option<Ref<'a>>,
    /// The server's clock, in ms since the Unix epoch.
    pub time_ms: u64,
}

impl Pong<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "pong")
            .reference(self.reference)
            .number("time", self.time_ms)
            .close();
    }
}

/// `{"type":"closing","reason":"restart","reconnect_after_ms":1500}`
#[derive(Debug, Clone, Copy)]
pub struct Closing<'a> {
    /// The reason word of the close that follows.
    pub reason: &'a str,
    /// When to come back, in ms.
    pub reconnect_after_ms: u64,
}

impl Closing<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        Object::typed(out, "closing")
            .text("reason", self.reason)
            .number("reconnect_after_ms", self.reconnect_after_ms)
            .close();
    }
}
