//! The assembler against tungstenite 0.29 in the server's role: the same bytes must give the same
//! events, and then fail in both or in neither. Used by the property tests and by the fuzz target
//! `assembler`; the module that includes it brings `Assembler`, `Bounds`, `Event` and `Violation`.
//!
//! Where they may differ, and why:
//!
//! 1. *When*, not whether: we fail at the first byte that nothing can make good, tungstenite when the
//!    frame is whole. Bytes that end before may therefore fail here alone; once the last frame is
//!    filled up (`filled_up`) both must have failed.
//! 2. A length that is not in its shortest form: tungstenite takes it. RFC 6455 section 5.2: "the minimal
//!    number of bytes MUST be used to encode the length". On a control frame that form alone says
//!    "too long" to us, before the length is there.
//! 3. A close code that may not be sent: we fail, tungstenite reports a close with 1002 of its own.
//!    RFC 6455 sections 7.4.1 (1004, 1005, 1006, 1015) and 7.4.2 (0-999 "are not used").
//! 4. Close code 1014: tungstenite counts it with 3, but IANA registered it ("bad gateway").
#![expect(clippy::cast_possible_truncation, reason = "lengths and patterns made small here")]

use std::io::{self, Cursor, Read, Write};

use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::{Assembler, Bounds, Event, Violation};

/// An event that owns what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into()),
            Event::Binary(bytes) => Self::Binary(bytes.into()),
            Event::Ping(bytes) => Self::Ping(bytes.into()),
            Event::Pong(bytes) => Self::Pong(bytes.into()),
            Event::Close(said) => Self::Close(said.map(|(code, reason)| (code, reason.into()))),
        }
    }
}

/// The events before the end, a close or a violation; and the violation.
pub type Outcome = (Vec<Said>, Option<Violation>);

/// Feeds `bytes` in reads that end at `cuts`, which are ascending.
pub fn feed(bytes: &[u8], cuts: &[usize], bounds: Bounds) -> Outcome {
    let mut assembler = Assembler::new();
    let mut said = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let mut input = bytes[start..end].to_vec();
        let mut used = 0;
        loop {
            match assembler.next(&mut input, &mut used, bounds) {
                Ok(Some(event)) => said.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (said, Some(violation)),
            }
            if let Some(Said::Close(_)) = said.last() {
                return (said, None);
            }
        }
        assert_eq!(used, input.len(), "None means that all was consumed");
        // A header, a control frame and the struct itself; the message at most doubled.
        assert!(assembler.held_bytes() <= 512 + 2 * end.min(bounds.message_bytes));
        start = end;
    }
    (said, None)
}

/// A client of which everything has been read already, and that takes every answer.
struct Client<'a>(Cursor<&'a [u8]>);

impl Read for Client<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of `bytes`; `true` if it failed.
fn oracle(bytes: &[u8], message_bytes: usize) -> (Vec<Said>, bool) {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes));
    let mut socket = WebSocket::from_raw_socket(Client(Cursor::new(bytes)), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_str().into()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.into()),
            Ok(Message::Ping(bytes)) => Said::Ping(bytes.into()),
            Ok(Message::Pong(bytes)) => Said::Pong(bytes.into()),
            Ok(Message::Close(frame)) => {
                said.push(Said::Close(frame.map(|it| (it.code.into(), it.reason.as_str().into()))));
                return (said, false);
            }
            Ok(Message::Frame(frame)) => panic!("a raw frame: {frame}"),
            // The bytes ran out.
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (said, false);
            }
            Err(_) => return (said, true),
        });
    }
}

/// `bytes` with the last frame filled up with zeros to its announced length. Knows nothing of what
/// is allowed. A frame that announces more than `message_bytes` stays as it is: it fails anyway.
fn filled_up(bytes: &[u8], message_bytes: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let mut byte = |index: usize| {
            bytes.resize(bytes.len().max(index + 1), 0);
            u64::from(bytes[index])
        };
        let second = byte(at + 1);
        let (len, header) = match second & 0x7f {
            126 => ((2..4).fold(0, |len, index| len << 8 | byte(at + index)), 4),
            127 => ((2..10).fold(0, |len, index| len << 8 | byte(at + index)), 10),
            len => (len, 2),
        };
        let header = header + if second & 0x80 == 0 { 0 } else { 4 };
        byte(at + header - 1);
        if len > message_bytes as u64 {
            break;
        }
        at += header + len as usize;
        bytes.resize(bytes.len().max(at), 0);
    }
    bytes
}

/// Panics if `bytes`, cut at `cuts`, is understood otherwise than whole, or than by tungstenite.
pub fn compare(bytes: &[u8], cuts: &[usize], message_bytes: usize) {
    let bounds = Bounds {
        message_bytes,
        fragments: usize::MAX,
    };
    let (said, violation) = feed(bytes, &[], bounds);
    assert_eq!(feed(bytes, cuts, bounds), (said.clone(), violation), "cut at {cuts:?}");

    let (heard, failed) = oracle(bytes, message_bytes);
    if violation.is_none() && heard.last() != Some(&own_close()) {
        assert_eq!((&said, false), (&heard, failed), "no violation found");
        return;
    }
    let bytes = filled_up(bytes, message_bytes);
    let (said_then, violation_then) = feed(&bytes, &[], bounds);
    if violation.is_some() {
        assert_eq!(
            (&said, violation),
            (&said_then, violation_then),
            "nothing makes it good"
        );
    }
    let (heard, failed) = oracle(&bytes, message_bytes);
    compare_failures(said_then, violation_then, heard, failed);
}

/// What tungstenite says instead of a code that it does not like (differences 3 and 4).
fn own_close() -> Said {
    Said::Close(Some((1002, "Protocol violation".into())))
}

fn compare_failures(mut said: Vec<Said>, violation: Option<Violation>, heard: Vec<Said>, failed: bool) {
    match violation {
        Some(Violation::Protocol("length not in its shortest form" | "control frame too long")) => {
            assert!(heard.starts_with(&said), "{said:?} begins {heard:?}");
        }
        Some(Violation::Protocol("close code that may not be sent")) if !failed => {
            said.push(own_close());
            assert_eq!(said, heard);
        }
        None if matches!(said.last(), Some(Said::Close(Some((1014, _))))) => {
            said.pop();
            said.push(own_close());
            assert_eq!(said, heard);
        }
        _ => assert_eq!((said, violation.is_some()), (heard, failed), "{violation:?}"),
    }
}
