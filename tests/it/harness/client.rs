//! A WebSocket client of the tests' own. It reads only when asked to, so a client that is left alone is a slow
//! reader, and it hides nothing but that it answers pings.

use std::io;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::request::{Answer, Stream};
use super::{frames, within};

/// What a server may send in one frame; Conclave never fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code and reason; 1005 for none.
    Close(u16, String),
}

pub struct Client {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// The answer that opened the socket.
    pub answer: Answer,
    /// The `connected` message, once read by [`Client::welcomed`].
    pub welcome: Value,
    refs: u64,
}

impl Client {
    /// On a stream that has been upgraded; `early` came together with the answer.
    pub fn over(stream: Box<dyn Stream>, early: Vec<u8>, answer: Answer) -> Self {
        Self {
            stream,
            received: early,
            answer,
            welcome: Value::Null,
            refs: 0,
        }
    }

    /// Reads `connected`.
    pub async fn welcomed(mut self) -> Self {
        self.welcome = self.expect("connected").await;
        self
    }

    // Saying

    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_bytes(&frames::text(text)).await;
    }

    /// One frame; `first` is its first byte, such as `FIN | TEXT`.
    pub async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send_bytes(&frames::frame(first, payload)).await;
    }

    /// Whatever the test likes, inside TLS.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.expect("the server takes what is sent");
    }

    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("the server to take what is sent", async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Sends with a new `ref` and waits for the one answer that carries it; others are skipped.
    pub async fn ask(&mut self, mut message: Value) -> Value {
        self.refs += 1;
        let reference = json!(format!("r{}", self.refs));
        message["ref"] = reference.clone();
        self.send(message).await;
        self.find(&format!("the answer to {reference}"), |answer| {
            answer["ref"] == reference
        })
        .await
    }

    /// Joins and gives back the `list`.
    pub async fn join(&mut self, room: &str) -> Value {
        let list = self.ask(json!({"type": "join", "room": room})).await;
        assert_eq!(list["type"], "list", "{list}");
        list
    }

    /// Says something and gives back the `ok`. The `chat` itself is skipped if it comes first.
    pub async fn chat(&mut self, room: &str, content: impl Into<Value>) -> Value {
        let ok = self
            .ask(json!({"type": "chat", "room": room, "content": content.into()}))
            .await;
        assert_eq!(ok["type"], "ok", "{ok}");
        ok
    }

    // Hearing

    /// The next frame; `None` when the connection has ended, in whatever way. The heartbeat may visit at any
    /// time, so its pings are answered and not shown; [`Client::raw`] shows them.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.raw().await {
                // The server may have said its last word since.
                Some(Frame::Ping(payload)) => {
                    drop(
                        self.try_send_bytes(&frames::frame(frames::FIN | frames::PONG, &payload))
                            .await,
                    );
                }
                other => return other,
            }
        }
    }

    /// The next frame, whatever it is.
    pub async fn raw(&mut self) -> Option<Frame> {
        within("a frame", self.read_frame()).await
    }

    /// # Cancel safety
    /// Cancel safe: what has been read stays in `received`.
    async fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = parse(&self.received) {
                self.received.drain(..used);
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// The next message. Panics when the socket ends instead.
    pub async fn message(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Frame::Text(text)) => return serde_json::from_str(&text).expect("the server sends JSON"),
                Some(Frame::Pong(_)) => {}
                other => panic!("a message was due, not {other:?}"),
            }
        }
    }

    /// The next message, which must be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.message().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The next message, which must be an `error` with this code.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let error = self.expect("error").await;
        assert_eq!(error["code"], code, "{error}");
        error
    }

    /// The next message of this type; others are skipped.
    pub async fn until(&mut self, kind: &str) -> Value {
        self.find(kind, |message| message["type"] == kind).await
    }

    /// The next message that `is_it`; others are skipped.
    pub async fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        within(what, async {
            loop {
                let message = self.message().await;
                if is_it(&message) {
                    return message;
                }
            }
        })
        .await
    }

    /// Everything that came before the answer to a ping that is sent now. Empty: nothing was under way.
    pub async fn pending(&mut self) -> Vec<Value> {
        self.refs += 1;
        let reference = json!(format!("r{}", self.refs));
        self.send(json!({"type": "ping", "ref": reference})).await;
        let mut pending = Vec::new();
        loop {
            let message = self.message().await;
            if message["ref"] == reference {
                return pending;
            }
            pending.push(message);
        }
    }

    // Ends

    /// Reads up to the server's close frame, whatever comes before it.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Frame::Close(code, reason)) => return (code, reason),
                Some(_) => {}
                None => panic!("the connection ended without a close frame"),
            }
        }
    }

    /// The next frame, which must be a close.
    pub async fn expect_close(&mut self, code: u16, reason: &str) {
        assert_eq!(self.next().await, Some(Frame::Close(code, reason.to_owned())));
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub async fn gone(&mut self) {
        assert_eq!(self.next().await, None, "the connection was to end");
    }

    /// Waits for the end of the server's side, which must be announced (close_notify) and not just be cut.
    pub async fn ended_in_order(&mut self) {
        assert_eq!(self.received, b"", "nothing comes after a close frame");
        let ended = within("the end", self.stream.read_buf(&mut self.received)).await;
        assert_eq!(ended.expect("an end in order"), 0, "nothing comes after a close frame");
    }

    /// Waits for the end of the connection, whatever comes before it.
    pub async fn drained(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Says goodbye properly and waits for the answer.
    pub async fn close(mut self, code: u16) {
        self.send_bytes(&frames::close(code, "")).await;
        assert_eq!(self.closed().await.0, code);
        self.gone().await;
    }
}

/// The first whole frame and its length; `None` when more bytes are needed.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(
        first & 0xf0,
        frames::FIN,
        "a server's frame is whole, without reserved bits"
    );
    assert_eq!(second & 0x80, 0, "a server's frame has no mask");
    let (length, head) = match second {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()), 10),
        short => (u64::from(short), 2),
    };
    let end = head + usize::try_from(length).expect("a length that fits");
    let payload = bytes.get(head..end)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the server sends UTF-8");
    let frame = match first & 0x0f {
        frames::TEXT => Frame::Text(text(payload)),
        frames::BINARY => Frame::Binary(payload.to_vec()),
        frames::PING => Frame::Ping(payload.to_vec()),
        frames::PONG => Frame::Pong(payload.to_vec()),
        frames::CLOSE if payload.is_empty() => Frame::Close(1005, String::new()),
        frames::CLOSE => Frame::Close(u16::from_be_bytes([payload[0], payload[1]]), text(&payload[2..])),
        other => panic!("no server sends opcode {other}"),
    };
    Some((frame, end))
}
