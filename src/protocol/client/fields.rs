//! The top level of a message: which fields it has, each still as it was written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use memchr::memchr;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Fault, Since};
use crate::protocol::error::ErrorCode;

/// Every field of every `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    Ref,
    Traceparent,
    Token,
    Room,
    Since,
    Content,
    Key,
    Before,
    After,
    Limit,
    Name,
    Data,
}

impl Field {
    const COUNT: usize = Self::Data as usize + 1;

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "type" => Self::Type,
            "ref" => Self::Ref,
            "traceparent" => Self::Traceparent,
            "token" => Self::Token,
            "room" => Self::Room,
            "since" => Self::Since,
            "content" => Self::Content,
            "key" => Self::Key,
            "before" => Self::Before,
            "after" => Self::After,
            "limit" => Self::Limit,
            "name" => Self::Name,
            "data" => Self::Data,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Ref => "ref",
            Self::Traceparent => "traceparent",
            Self::Token => "token",
            Self::Room => "room",
            Self::Since => "since",
            Self::Content => "content",
            Self::Key => "key",
            Self::Before => "before",
            Self::After => "after",
            Self::Limit => "limit",
            Self::Name => "name",
            Self::Data => "data",
        }
    }
}

/// The known fields of one message.
#[derive(Default)]
pub(super) struct Fields<'a> {
    raw: [Option<&'a RawValue>; Field::COUNT],
    /// A field that came more than once: parsers differ in which one they believe. `ref` if it is among several,
    /// because then nobody can say where the error belongs.
    twice: Option<Field>,
}

impl<'a> Fields<'a> {
    /// `bad_json` if `text` is not one whole JSON text, `bad_message` if it is not an object.
    pub(super) fn read(text: &'a str) -> Result<Self, Fault> {
        let mut fields = Self::default();
        let walked = walk(text, |name, raw| {
            let Some(field) = string(name).and_then(|name| Field::named(&name)) else {
                return;
            };
            let again = fields.raw[field as usize].replace(raw).is_some();
            if again && fields.twice != Some(Field::Ref) {
                fields.twice = Some(field);
            }
        });
        match walked {
            Ok(()) => Ok(fields),
            Err(_) => Err(not_an_object(text)),
        }
    }

    pub(super) fn raw(&self, field: Field) -> Option<&'a RawValue> {
        self.raw[field as usize]
    }

    pub(super) fn twice(&self) -> Option<Field> {
        self.twice
    }

    pub(super) fn required(&self, field: Field) -> Result<&'a RawValue, Fault> {
        self.raw(field)
            .ok_or_else(|| Fault::bad_message(format!("`{}` is missing", field.name())))
    }

    pub(super) fn text(&self, field: Field) -> Result<Cow<'a, str>, Fault> {
        let raw = self.required(field)?;
        string(raw).ok_or_else(|| Fault::bad_message(format!("`{}` must be a string", field.name())))
    }

    pub(super) fn number(&self, field: Field) -> Result<Option<u64>, Fault> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        match raw.get().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Fault::bad_message(format!(
                "`{}` must be a non-negative integer",
                field.name()
            ))),
        }
    }
}

/// The text of a JSON string, borrowed unless an escape forces a copy. `None` if it is another kind of value, or if
/// an escape is half of a surrogate pair.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr(b'\\', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// `None` if it is not an object, or lacks a field, or has one twice or mistyped.
pub(super) fn since(raw: &RawValue) -> Option<Since<'_>> {
    let (mut epoch, mut seq, mut twice) = (None, None, false);
    walk(raw.get(), |name, raw| match string(name).as_deref() {
        Some("epoch") => twice |= epoch.replace(raw).is_some(),
        Some("seq") => twice |= seq.replace(raw).is_some(),
        _ => {}
    })
    .ok()?;
    if twice {
        return None;
    }
    Some(Since {
        epoch: string(epoch?)?,
        seq: seq?.get().parse().ok()?,
    })
}

/// The object without the fields that say what the message is and whose: every other one as it was written. Refused
/// with a name twice, because parsers differ in which one they believe.
pub(super) fn rest(text: &str) -> Result<String, Fault> {
    let mut names = HashSet::new();
    let mut twice = false;
    let mut rest = String::with_capacity(text.len());
    let walked = walk(text, |name, value| {
        // Half a surrogate pair in a name was refused before.
        let Some(known) = string(name) else { return };
        if matches!(
            Field::named(&known),
            Some(Field::Type | Field::Ref | Field::Traceparent)
        ) {
            return;
        }
        twice |= !names.insert(known);
        rest.push(if rest.is_empty() { '{' } else { ',' });
        rest.push_str(name.get());
        rest.push(':');
        rest.push_str(value.get());
    });
    if walked.is_err() {
        return Err(not_an_object(text));
    }
    if twice {
        return Err(Fault::bad_message("a field comes more than once"));
    }
    if rest.is_empty() {
        rest.push('{');
    }
    rest.push('}');
    Ok(rest)
}

/// Only after a failure, so that the usual message is read once: tells a text that is not JSON from one that is
/// something else than an object.
#[cold]
fn not_an_object(text: &str) -> Fault {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Fault::bad_message("a message is a JSON object"),
        Err(_) => Fault {
            code: ErrorCode::BadJson,
            message: "not a JSON text".into(),
        },
    }
}

/// Hands over each name and value of an object as they were written. Fails if `text` is not one whole JSON object.
///
/// Raw values are skipped without recursion, so nesting of any depth costs a byte per level and no stack.
fn walk<'a>(text: &'a str, each: impl FnMut(&'a RawValue, &'a RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    Walk(each).deserialize(&mut json)?;
    json.end()
}

struct Walk<F>(F);

impl<'a, F: FnMut(&'a RawValue, &'a RawValue)> DeserializeSeed<'a> for Walk<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'a, F: FnMut(&'a RawValue, &'a RawValue)> Visitor<'a> for Walk<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut object: A) -> Result<(), A::Error> {
        while let Some((name, value)) = object.next_entry()? {
            (self.0)(name, value);
        }
        Ok(())
    }
}
