//! What a client says: one JSON object per text message, with a `type` (PROTOCOL.md section 2).

mod fields;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use super::error::ErrorCode;
use fields::{Field, Fields};

/// Longest `ref`: of a string its text, of an integer its digits and sign, in bytes.
pub const REF_BYTES_MAX: usize = 64;
/// Longest `key` of a `chat`, in bytes.
pub const KEY_BYTES_MAX: usize = 64;
/// Deepest nesting of a message, the message itself counted: clients parse its content with parsers that recurse.
pub const NESTING_MAX: usize = 32;
/// Longest `name` of a `call`, in bytes.
pub const CALL_NAME_BYTES_MAX: usize = 128;
/// Every `type` that is ours: no hook takes one over.
pub const TYPES: [&str; 8] = ["auth", "join", "leave", "chat", "list", "history", "call", "ping"];
/// Chats in a `history` reply when the request names no `limit`.
pub const HISTORY_PAGE_DEFAULT: usize = 100;
/// Chats in a `history` reply at most.
pub const HISTORY_PAGE_MAX: usize = 1000;

const _: () = assert!(HISTORY_PAGE_DEFAULT <= HISTORY_PAGE_MAX);

/// A message that was understood. Its room name is a string, but not yet [checked](super::room::check).
#[derive(Debug)]
pub struct Request<'a> {
    /// To be written into the one answer.
    pub reference: Option<Ref<'a>>,
    /// The W3C trace context that the sender works under, as it came.
    pub traceparent: Option<Cow<'a, str>>,
    /// What is asked.
    pub message: ClientMessage<'a>,
}

/// The raw JSON of a `ref`, written back as it came: a string of at most [`REF_BYTES_MAX`] bytes, or an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ref<'a>(&'a str);

impl<'a> Ref<'a> {
    /// The way back from [`as_json`](Self::as_json), for answers that outlive the text of their request.
    /// `None` if `json` is not a good `ref`.
    pub fn from_json(json: &'a str) -> Option<Self> {
        serde_json::from_str::<&RawValue>(json).ok().and_then(Self::of)
    }

    /// The `ref` as JSON.
    pub fn as_json(&self) -> &'a str {
        self.0
    }

    fn of(raw: &'a RawValue) -> Option<Self> {
        let json = raw.get();
        let good = match fields::string(raw) {
            Some(text) => text.len() <= REF_BYTES_MAX,
            None => json.len() <= REF_BYTES_MAX && is_integer(json),
        };
        good.then_some(Self(json))
    }
}

/// JSON has checked the form of the number: it has a digit, and no needless zero or plus.
fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// One `type` with its fields.
pub enum ClientMessage<'a> {
    /// `{"type":"auth","token":"eyJ…"}`
    Auth {
        /// Secret: it appears in no log and no error.
        token: Cow<'a, str>,
    },
    /// `{"type":"join","room":"lobby","since":{"epoch":"e1","seq":41}}`
    Join {
        /// The name, not yet checked.
        room: Cow<'a, str>,
        /// Where the client stands; absent or `null`: nowhere.
        since: Option<Since<'a>>,
    },
    /// `{"type":"leave","room":"lobby"}`
    Leave {
        /// The name, not yet checked.
        room: Cow<'a, str>,
    },
    /// `{"type":"chat","room":"lobby","content":"hi","key":"k1"}`
    Chat {
        /// The name, not yet checked.
        room: Cow<'a, str>,
        /// Any JSON, passed on as it was written.
        content: &'a RawValue,
        /// 1 to [`KEY_BYTES_MAX`] bytes: a retry with the same one is kept once.
        key: Option<Cow<'a, str>>,
    },
    /// `{"type":"list","room":"lobby"}`
    List {
        /// The name, not yet checked.
        room: Cow<'a, str>,
    },
    /// `{"type":"history","room":"lobby","before":41,"limit":100}`
    History {
        /// The name, not yet checked.
        room: Cow<'a, str>,
        /// Which chats.
        page: Page,
        /// How many chats: 1 to [`HISTORY_PAGE_MAX`].
        limit: usize,
    },
    /// `{"type":"call","name":"orders.create","data":{"id":7}}`
    Call {
        /// What the application is to do: 1 to [`CALL_NAME_BYTES_MAX`] bytes without control characters.
        name: Cow<'a, str>,
        /// Any JSON, passed on as it was written; `null` when there is none.
        data: &'a str,
    },
    /// `{"type":"ping"}`
    Ping,
}

impl ClientMessage<'_> {
    /// The `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Auth { .. } => "auth",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Chat { .. } => "chat",
            Self::List { .. } => "list",
            Self::History { .. } => "history",
            Self::Call { .. } => "call",
            Self::Ping => "ping",
        }
    }
}

/// Shows the `type` alone: a token must not get into a log by way of `{:?}`.
impl fmt::Debug for ClientMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// The position of one frame: `{"epoch":"e1","seq":41}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since<'a> {
    /// Who numbered the chats.
    pub epoch: Cow<'a, str>,
    /// The last chat that the client has.
    pub seq: u64,
}

/// Which chats a `history` asks for, by `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest.
    Latest,
    /// The newest below.
    Before(u64),
    /// The oldest above.
    After(u64),
}

/// A message that was not understood; becomes an `error`.
#[derive(Debug, PartialEq, Eq)]
pub struct BadMessage<'a> {
    /// Kept whenever there is a good one in a JSON object.
    pub reference: Option<Ref<'a>>,
    /// `bad_json`, `bad_message` or `unknown_type`.
    pub code: ErrorCode,
    /// For a person. Never holds anything that the client wrote.
    pub message: Cow<'static, str>,
}

/// What is wrong, before it is known whose `ref` goes with it.
struct Fault {
    code: ErrorCode,
    message: Cow<'static, str>,
}

impl Fault {
    fn bad_message(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: ErrorCode::BadMessage,
            message: message.into(),
        }
    }

    fn twice(field: Field) -> Self {
        Self::bad_message(format!("`{}` comes more than once", field.name()))
    }

    fn about(self, reference: Option<Ref<'_>>) -> BadMessage<'_> {
        BadMessage {
            reference,
            code: self.code,
            message: self.message,
        }
    }
}

/// Reads one text message, borrowing from it: only a string with escapes is copied.
///
/// # Errors
/// `bad_json`, `bad_message` or `unknown_type`, with the `ref` if a good one can be read. Unknown fields are ignored.
pub fn parse(text: &str) -> Result<Request<'_>, BadMessage<'_>> {
    let fields = Fields::read(text).map_err(|fault| fault.about(None))?;
    let reference = reference(&fields).map_err(|fault| fault.about(None))?;
    match message(text, &fields) {
        Ok(message) => {
            let traceparent = fields.raw(Field::Traceparent).and_then(fields::string);
            Ok(Request {
                reference,
                traceparent,
                message,
            })
        }
        Err(fault) => Err(fault.about(reference)),
    }
}

fn reference<'a>(fields: &Fields<'a>) -> Result<Option<Ref<'a>>, Fault> {
    if fields.twice() == Some(Field::Ref) {
        return Err(Fault::twice(Field::Ref));
    }
    let Some(raw) = fields.raw(Field::Ref) else {
        return Ok(None);
    };
    let good = Ref::of(raw).ok_or(Fault::bad_message(
        "`ref` must be a string of at most 64 bytes, or an integer",
    ))?;
    Ok(Some(good))
}

fn message<'a>(text: &str, fields: &Fields<'a>) -> Result<ClientMessage<'a>, Fault> {
    if let Some(field) = fields.twice() {
        return Err(Fault::twice(field));
    }
    if scan::nests_over(NESTING_MAX, text) {
        return Err(Fault::bad_message("nested more than 32 deep"));
    }
    let kind = fields.text(Field::Type)?;
    let room = || fields.text(Field::Room);
    Ok(match &*kind {
        "chat" => ClientMessage::Chat {
            room: room()?,
            content: content(fields)?,
            key: key(fields)?,
        },
        "join" => ClientMessage::Join {
            room: room()?,
            since: since(fields)?,
        },
        "leave" => ClientMessage::Leave { room: room()? },
        "list" => ClientMessage::List { room: room()? },
        "history" => ClientMessage::History {
            room: room()?,
            page: page(fields)?,
            limit: limit(fields)?,
        },
        "call" => ClientMessage::Call {
            name: call_name(fields)?,
            data: data(fields)?,
        },
        "ping" => ClientMessage::Ping,
        "auth" => ClientMessage::Auth {
            token: fields.text(Field::Token)?,
        },
        _ => {
            let message = "`type` must be auth, join, leave, chat, list, history, call or ping".into();
            return Err(Fault {
                code: ErrorCode::UnknownType,
                message,
            });
        }
    })
}

/// A message of a `type` that is not ours, for an application that takes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreign<'a> {
    /// The `type`: 1 to [`CALL_NAME_BYTES_MAX`] bytes without control characters.
    pub kind: Cow<'a, str>,
    pub traceparent: Option<Cow<'a, str>>,
    /// The message without `type`, `ref` and `traceparent`, as JSON.
    pub data: String,
}

/// Reads what [`parse`] has called an `unknown_type`.
///
/// # Errors
/// `bad_message`: its type is no name of a call, or it is JSON that strict parsers refuse or read in two ways.
pub fn foreign(text: &str) -> Result<Foreign<'_>, BadMessage<'_>> {
    let fields = Fields::read(text).map_err(|fault| fault.about(None))?;
    let reference = reference(&fields).map_err(|fault| fault.about(None))?;
    let read = || {
        let kind = fields.text(Field::Type)?;
        if !is_call_name(&kind) {
            return Err(Fault::bad_message("`type` must be a name of 1 to 128 bytes"));
        }
        check_surrogates("the message", text)?;
        Ok(Foreign {
            kind,
            traceparent: fields.raw(Field::Traceparent).and_then(fields::string),
            data: fields::rest(text)?,
        })
    };
    read().map_err(|fault| fault.about(reference))
}

fn is_call_name(name: &str) -> bool {
    (1..=CALL_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

fn call_name<'a>(fields: &Fields<'a>) -> Result<Cow<'a, str>, Fault> {
    let name = fields.text(Field::Name)?;
    if is_call_name(&name) {
        return Ok(name);
    }
    Err(Fault::bad_message(
        "`name` must be a string of 1 to 128 bytes without control characters",
    ))
}

fn data<'a>(fields: &Fields<'a>) -> Result<&'a str, Fault> {
    let data = fields.raw(Field::Data).map_or("null", RawValue::get);
    check_surrogates("`data`", data)?;
    Ok(data)
}

/// Half a surrogate pair is JSON by its grammar, but strict parsers refuse the text around it: one such chat would
/// make a whole `history` unreadable to every strict client in the room.
fn content<'a>(fields: &Fields<'a>) -> Result<&'a RawValue, Fault> {
    let content = fields.required(Field::Content)?;
    check_surrogates("`content`", content.get())?;
    Ok(content)
}

/// Whether JSON that the application wrote may go into a message: by the rules for what clients write.
///
/// # Errors
/// What is wrong with it.
pub fn check_passed_on(json: &str) -> Result<(), &'static str> {
    // The message around it is a level of its own.
    if scan::nests_over(NESTING_MAX - 1, json) {
        return Err("nested more than 32 deep, the message around it counted");
    }
    if scan::has_lone_surrogate(json) {
        return Err("half of a surrogate pair, which is no Unicode text");
    }
    Ok(())
}

fn check_surrogates(what: &'static str, json: &str) -> Result<(), Fault> {
    if scan::has_lone_surrogate(json) {
        let message = format!("{what} has half of a surrogate pair, which is no Unicode text");
        return Err(Fault::bad_message(message));
    }
    Ok(())
}

/// `Ok`, or the sentence for what a client could not have said as the `content` of a `chat`.
pub fn check_content(content: &RawValue) -> Result<(), Cow<'static, str>> {
    if scan::nests_over(NESTING_MAX - 1, content.get()) {
        return Err("`content` is nested more than 31 deep".into());
    }
    check_surrogates("`content`", content.get()).map_err(|fault| fault.message)
}

fn key<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, Fault> {
    let Some(raw) = fields.raw(Field::Key) else {
        return Ok(None);
    };
    let key = fields::string(raw)
        .filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
        .ok_or(Fault::bad_message("`key` must be a string of 1 to 64 bytes"))?;
    Ok(Some(key))
}

fn since<'a>(fields: &Fields<'a>) -> Result<Option<Since<'a>>, Fault> {
    let Some(raw) = fields.raw(Field::Since).filter(|raw| raw.get() != "null") else {
        return Ok(None);
    };
    let since = fields::since(raw).ok_or(Fault::bad_message(
        "`since` must be an object with `epoch`, a string, and `seq`, a non-negative integer, each once",
    ))?;
    Ok(Some(since))
}

fn page(fields: &Fields<'_>) -> Result<Page, Fault> {
    match (fields.number(Field::Before)?, fields.number(Field::After)?) {
        (None, None) => Ok(Page::Latest),
        (Some(seq), None) => Ok(Page::Before(seq)),
        (None, Some(seq)) => Ok(Page::After(seq)),
        (Some(_), Some(_)) => Err(Fault::bad_message("`before` and `after` exclude each other")),
    }
}

fn limit(fields: &Fields<'_>) -> Result<usize, Fault> {
    let Some(raw) = fields.raw(Field::Limit) else {
        return Ok(HISTORY_PAGE_DEFAULT);
    };
    let limit = raw
        .get()
        .parse()
        .ok()
        .filter(|limit| (1..=HISTORY_PAGE_MAX).contains(limit));
    limit.ok_or(Fault::bad_message("`limit` must be an integer from 1 to 1000"))
}
