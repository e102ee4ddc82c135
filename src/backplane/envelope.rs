//! What a log keeps of a message: `{"v":1,"from":{…},"content":…,"trace":"00-…"}`. Readable with the engine's own tools,
//! and checked when it comes back: whatever else can write there must not reach a client unseen.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The newest version that is written. A newer node's envelopes must stay readable while a deploy is under way.
const VERSION: u64 = 1;

/// The parts of one envelope.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    v: u64,
    /// `{"id":…,"name":…,"info":…}` of the sender.
    #[serde(borrow)]
    pub from: &'a RawValue,
    /// The JSON that the sender wrote.
    #[serde(borrow)]
    pub content: &'a RawValue,
    /// `traceparent` of the publish (W3C Trace Context).
    #[serde(borrow, default)]
    pub trace: Option<&'a str>,
}

/// Not an envelope, or of a version that this build cannot read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

impl<'a> Envelope<'a> {
    /// # Errors
    /// [`Unreadable`]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let envelope: Self = serde_json::from_slice(bytes).map_err(|_| Unreadable)?;
        if envelope.v == VERSION && envelope.from.get().starts_with('{') {
            Ok(envelope)
        } else {
            Err(Unreadable)
        }
    }
}

/// Writes an envelope. `from_json` and `content` are JSON, `trace` is a valid `traceparent`.
#[must_use]
pub fn seal(from_json: &str, content: &str, trace: Option<&str>) -> Bytes {
    let mut out = String::with_capacity(from_json.len() + content.len() + 96);
    out.push_str(r#"{"v":1,"from":"#);
    out.push_str(from_json);
    out.push_str(r#","content":"#);
    out.push_str(content);
    if let Some(trace) = trace {
        out.push_str(r#","trace":""#);
        out.push_str(trace);
        out.push('"');
    }
    out.push('}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_again() {
        let from = r#"{"id":"u7","name":"Ann"}"#;
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (content, trace) in [(r#""hi""#, None), (r#"{"a":[1,null]}"#, Some(trace)), ("null", None)] {
            let sealed = seal(from, content, trace);
            let envelope = Envelope::parse(&sealed).expect("readable");
            assert_eq!(
                (envelope.from.get(), envelope.content.get(), envelope.trace),
                (from, content, trace)
            );
        }
    }

    #[test]
    fn what_others_wrote_there_is_refused() {
        for bad in [
            "",
            "{}",
            "hi",
            r#"{"v":2,"from":{},"content":1}"#,
            r#"{"v":1,"from":"u","content":1}"#,
        ] {
            assert_eq!(Envelope::parse(bad.as_bytes()).err(), Some(Unreadable), "{bad}");
        }
    }
}
