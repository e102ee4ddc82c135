//! A line of a tap for a person: who, where, how much; what was said only where the operator of the node decided so, and
//! then shortened. A token is never shown: what looks like one is blanked, wherever it stands.

use serde_json::{Map, Value, json};

use super::{Event, Line, Said};
use crate::websocket::encoded::Frame;

/// Characters shown of what was said.
const CONTENT_CHARS_MAX: usize = 200;

/// Bytes of a frame above which only its size is shown: nobody reads it in a list, and parsing it costs.
const PARSED_BYTES_MAX: usize = 64 * 1024;

/// Fields of a message that say where something happened, and nothing about a person but an id.
const PLAIN_FIELDS: [&str; 12] = [
    "room",
    "seq",
    "epoch",
    "reason",
    "code",
    "count",
    "recovered",
    "reconnect_after_ms",
    "retry_after_ms",
    "first",
    "more",
    "expires",
];

/// One line as JSON; with `content`, a chat's content too.
#[must_use]
pub fn shown(line: &Line, content: bool) -> Value {
    let (way, session, mut fields) = match &line.event {
        Event::ToRoom(frame) => ("room", None, of_frame(frame, content)),
        Event::ToUser(session, frame) => ("out", Some(session), of_frame(frame, content)),
        Event::FromUser(session, said) => ("in", Some(session), of_said(said, content)),
        Event::Closed { session, code, reason } => {
            let fields = [
                ("type", json!("closed")),
                ("code", json!(code)),
                ("reason", json!(reason)),
            ];
            (
                "end",
                Some(session),
                Map::from_iter(fields.map(|(key, value)| (key.to_owned(), value))),
            )
        }
    };
    fields.insert("time".to_owned(), line.time_ms.into());
    fields.insert("way".to_owned(), way.into());
    if let Some(session) = session {
        fields.insert("session".to_owned(), session.to_string().into());
    }
    Value::Object(fields)
}

fn of_said(said: &Said, content: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), said.kind.into());
    fields.insert("bytes".to_owned(), said.bytes.into());
    if let Some(room) = &said.room {
        fields.insert("room".to_owned(), blanked(room).into());
    }
    if let Some(text) = said.content.as_ref().filter(|_| content) {
        fields.insert("content".to_owned(), shortened(text).into());
    }
    fields
}

fn of_frame(frame: &Frame, content: bool) -> Map<String, Value> {
    let payload = frame.payload();
    let mut fields = Map::new();
    fields.insert("bytes".to_owned(), payload.len().into());
    let parsed = (payload.len() <= PARSED_BYTES_MAX)
        .then(|| serde_json::from_slice::<Map<String, Value>>(payload).ok())
        .flatten();
    let Some(said) = parsed else {
        let word = if payload.starts_with(br#"{"type":"chat""#) {
            "chat"
        } else {
            "frame"
        };
        fields.insert("type".to_owned(), word.into());
        return fields;
    };
    let known = said
        .iter()
        .filter(|(key, _)| *key == "type" || PLAIN_FIELDS.contains(&key.as_str()));
    fields.extend(known.map(|(key, value)| (key.clone(), plain(value))));
    if let Some(id) = said
        .get("user")
        .or_else(|| said.get("from"))
        .and_then(|user| user.get("id"))
    {
        fields.insert("user".to_owned(), plain(id));
    }
    for many in ["users", "messages"] {
        if let Some(list) = said.get(many).and_then(Value::as_array) {
            fields.insert(many.to_owned(), list.len().into());
        }
    }
    if let Some(text) = said.get("content").filter(|_| content) {
        fields.insert("content".to_owned(), shortened(&text.to_string()).into());
    }
    fields
}

/// Numbers and words as they are; anything larger is none of these fields.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => shortened(text).into(),
        Value::Array(_) | Value::Object(_) => Value::Null,
        value => value.clone(),
    }
}

fn shortened(text: &str) -> String {
    // Blanked before it is cut: half a token is still none of ours to show.
    let text = blanked(text);
    match text.char_indices().nth(CONTENT_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Words that begin as a JWT does (`{"` in Base64) become `***`.
fn blanked(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let (before, word) = rest.split_at(at);
        let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
        shown.push_str(before);
        shown.push_str("***");
        rest = &word[end..];
    }
    shown.push_str(rest);
    shown
}
