//! What happened, in words and as JSON: one shape for those that are asked and those that are told. Pure.

use serde_json::Value;

/// Something that hooks hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A client with a good token wants to connect, or has.
    Open,
    /// A connection has ended.
    Close,
    /// A user wants to enter a room, or has.
    Join,
    /// A user's last connection has gone from a room.
    Left,
    /// Something is said in a room.
    Chat,
    /// A client calls the application.
    Call,
    /// Events that could not wait any longer are gone.
    Lost,
}

impl Event {
    /// Those that the application may decide.
    pub const ASKED: &[Self] = &[Self::Open, Self::Join, Self::Chat, Self::Call];
    /// Those that it may be told of.
    pub const TOLD: &[Self] = &[Self::Open, Self::Close, Self::Join, Self::Left, Self::Chat];

    /// As in the configuration and in `event`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Join => "join",
            Self::Left => "left",
            Self::Chat => "chat",
            Self::Call => "call",
            Self::Lost => "lost",
        }
    }
}

/// A fresh id: `e-` and 32 hexadecimal digits. The same one on every try.
pub fn fresh_id() -> String {
    format!("e-{}", uuid::Uuid::new_v4().simple())
}

/// Writes one event, `{"id":"e-…","event":"join","time":…,"node":"a",…}`.
pub struct EventJson(String);

impl EventJson {
    pub fn new(id: &str, event: Event, time_ms: u64, node: &str) -> Self {
        let (id, event, node) = (Value::from(id), event.as_str(), Value::from(node));
        Self(format!(
            r#"{{"id":{id},"event":"{event}","time":{time_ms},"node":{node}"#
        ))
    }

    /// A field whose value is JSON already.
    pub fn raw(mut self, name: &'static str, json: &str) -> Self {
        self.0.reserve(name.len() + json.len() + 4);
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0.push_str(json);
        self
    }

    pub fn text(self, name: &'static str, text: &str) -> Self {
        self.raw(name, &Value::from(text).to_string())
    }

    /// Left out when there is none.
    pub fn optional(self, name: &'static str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    pub fn number(self, name: &'static str, number: u64) -> Self {
        self.raw(name, &number.to_string())
    }

    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_whatever_the_words_are() {
        let json = EventJson::new("e-1", Event::Chat, 17, "a\"b")
            .text("room", "\n")
            .raw("user", r#"{"id":"u7"}"#)
            .optional("key", None)
            .number("seq", 3)
            .finish();
        let event: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(event["event"], "chat");
        assert_eq!(event["node"], "a\"b");
        assert_eq!(event["room"], "\n");
        assert_eq!(event["user"]["id"], "u7");
        assert_eq!(event["seq"], 3);
        assert!(event.get("key").is_none());
    }

    #[test]
    fn ids_are_fresh() {
        assert_ne!(fresh_id(), fresh_id());
        assert_eq!(fresh_id().len(), 34);
    }
}
