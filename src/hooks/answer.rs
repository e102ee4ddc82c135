//! What the application answered, read strictly: what is no good answer opens no door.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::endpoint::{HookFailed, status_of};
use crate::auth::{self, Amendment};
use crate::outbound;
use crate::protocol::client;

/// Longest `reason` that a client is told; what comes above is cut.
const REASON_BYTES_MAX: usize = 256;

/// What the application decided.
#[derive(Debug)]
pub enum Answer {
    Allowed(Box<Changes>),
    /// With its `reason`, if it gave one.
    Denied(Option<Box<str>>),
}

/// What an allowing answer says besides. What does not belong to the event changes nothing.
#[derive(Debug, Default)]
pub struct Changes {
    /// Of `chat`: said in place of what the client wrote.
    pub content: Option<Box<RawValue>>,
    /// Of `call`: what the client is replied.
    pub data: Option<Box<RawValue>>,
    /// Of `open`: what `user`, `rooms` and `expires_in` change of the token.
    pub amendment: Option<Amendment>,
}

/// `{"allow":true,"content":…}`. A name twice is refused by serde.
#[derive(Deserialize)]
struct Said {
    allow: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default, deserialize_with = "also_null")]
    content: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "also_null")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    user: Option<Map<String, Value>>,
    #[serde(default)]
    rooms: Option<Map<String, Value>>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// `null` is something that may be said.
fn also_null<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(json).map(Some)
}

/// 204 allows, 403 denies, 200 says which; everything else says nothing. `content_bytes_max` bounds `content`.
pub fn read(answer: outbound::Answer, content_bytes_max: usize) -> Result<(&'static str, Answer), HookFailed> {
    let answer = match answer.status {
        StatusCode::NO_CONTENT => Answer::Allowed(Box::default()),
        // The status decides; a body is welcome and need not be JSON.
        StatusCode::FORBIDDEN => Answer::Denied(said(&answer.body).ok().and_then(|said| reason(said.reason))),
        StatusCode::OK => of_body(&answer.body, content_bytes_max)?,
        _ => return Err(status_of(&answer)),
    };
    Ok(match &answer {
        Answer::Allowed(_) => ("ok", answer),
        Answer::Denied(_) => ("denied", answer),
    })
}

fn of_body(body: &Bytes, content_bytes_max: usize) -> Result<Answer, HookFailed> {
    let said = said(body).map_err(HookFailed::Malformed)?;
    if !said.allow {
        return Ok(Answer::Denied(reason(said.reason)));
    }
    for json in [&said.content, &said.data].into_iter().flatten() {
        client::check_passed_on(json.get()).map_err(HookFailed::Malformed)?;
    }
    if (said.content.as_ref()).is_some_and(|content| content.get().len() > content_bytes_max) {
        return Err(HookFailed::Malformed("content is longer than limits.message_bytes"));
    }
    let amendment = Amendment::read(said.user, said.rooms.as_ref(), said.expires_in, auth::now());
    Ok(Answer::Allowed(Box::new(Changes {
        content: said.content,
        data: said.data,
        amendment: amendment.map_err(HookFailed::Malformed)?,
    })))
}

fn said(body: &[u8]) -> Result<Said, &'static str> {
    let text = str::from_utf8(body).map_err(|_| "not UTF-8")?;
    // A list of the fields in their order would be one to serde, too.
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object");
    }
    serde_json::from_str(text).map_err(|_| {
        "not JSON such as {\"allow\":true}, or a field of it has the wrong type or comes twice; `allow` is required"
    })
}

fn reason(reason: Option<String>) -> Option<Box<str>> {
    let mut reason = reason?;
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    }
    Some(reason.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn told(status: u16, body: &str) -> String {
        let answer = outbound::Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        match read(answer, 32) {
            Ok((word, Answer::Allowed(changes))) => {
                let json = |raw: &Option<Box<RawValue>>| raw.as_ref().map(|raw| raw.get().to_owned());
                format!("{word} {:?} {:?}", json(&changes.content), json(&changes.data))
            }
            Ok((word, Answer::Denied(reason))) => format!("{word} {reason:?}"),
            Err(failed) => format!("{failed:?}"),
        }
    }

    #[test]
    fn good_answers_are_understood() {
        for (status, body, expected) in [
            (204, "", "ok None None"),
            (403, "", "denied None"),
            (403, "<h1>no</h1>", "denied None"),
            (403, r#"{"allow":true,"reason":"muted"}"#, "denied Some(\"muted\")"),
            (200, r#" {"allow":true}"#, "ok None None"),
            (200, r#"{"allow":false,"reason":"muted"}"#, "denied Some(\"muted\")"),
            (200, r#"{"allow":false}"#, "denied None"),
            (200, r#"{"allow":true,"content":null}"#, "ok Some(\"null\") None"),
            (
                200,
                r#"{"allow":true,"data":{"id": 1.50},"more":[]}"#,
                "ok None Some(\"{\\\"id\\\": 1.50}\")",
            ),
        ] {
            assert_eq!(told(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn whatever_else_is_no_answer() {
        let deep = format!(r#"{{"allow":true,"content":{}1{}}}"#, "[".repeat(32), "]".repeat(32));
        let long = format!(r#"{{"allow":true,"content":"{}"}}"#, "x".repeat(40));
        for (status, body) in [
            (200, ""),
            (200, "true"),
            (200, "[true]"),
            (200, "{}"),
            (200, r#"{"allow":"yes"}"#),
            (200, r#"{"allow":1}"#),
            (200, r#"{"allow":null}"#),
            (200, r#"{"allow":false,"allow":true}"#),
            (200, r#"{"allow":true} {"#),
            (200, r#"{"allow":true,"reason":7}"#),
            (200, r#"{"allow":true,"user":"admin"}"#),
            (200, r#"{"allow":true,"rooms":["*"]}"#),
            (200, r#"{"allow":true,"expires_in":-1}"#),
            (200, r#"{"allow":true,"user":{"name":7}}"#),
            (200, r#"{"allow":true,"rooms":{"a*b":["*"]}}"#),
            (200, r#"{"allow":true,"content":"\ud800"}"#),
            (200, deep.as_str()),
            (200, long.as_str()),
        ] {
            assert!(
                told(status, body).starts_with("Malformed"),
                "{body}: {}",
                told(status, body)
            );
        }
        for status in [201, 202, 301, 302, 307, 400, 401, 404, 429, 500, 503] {
            let told = told(status, r#"{"allow":true}"#);
            assert!(told.starts_with("Status"), "{status}: {told}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let body = format!(r#"{{"allow":false,"reason":"x{}"}}"#, "é".repeat(200));
        assert_eq!(told(200, &body).len(), "denied Some(\"\")".len() + 255);
    }
}
