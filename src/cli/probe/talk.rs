//! What is said over an open socket, and what must come back.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::dial::Socket;
use super::stage::{Kind, Trouble, plain};

/// An open socket.
pub struct Link {
    socket: Socket,
    refs: u64,
}

/// What `connected` said.
#[derive(Debug, Clone)]
pub struct Welcome {
    pub session: String,
    pub user: String,
    pub kept: String,
    /// Unix seconds.
    pub expires: Option<u64>,
}

/// How a socket ended while something was awaited.
enum Lost {
    Closed(u16, String),
    Cut,
}

impl From<Error> for Lost {
    fn from(_: Error) -> Self {
        Self::Cut
    }
}

impl Lost {
    fn trouble(self, before_welcome: bool) -> Trouble {
        match self {
            Self::Closed(1008, word) => refused_token(&word),
            Self::Closed(1013, word) if before_welcome => Trouble::new(
                Kind::Refused,
                format!("turned away with 1013 {}", plain(&word)),
                "the node is full (conclave_connections), draining (conclave_ready), or has not heard of revocations for too \
                 long (conclave_backplane_up, conclave_revocation_staleness_seconds)",
            ),
            Self::Closed(1012, _) => Trouble::new(
                Kind::Wrong,
                "the node is restarting (1012)",
                "it drains: another node, or the same one in a moment, serves",
            ),
            Self::Closed(code, word) => Trouble::new(
                Kind::Wrong,
                format!("closed with {code} {}", plain(&word)),
                "the server's log names the session",
            ),
            Self::Cut => Trouble::new(
                Kind::Wrong,
                "the connection ended without a close frame",
                "the process was killed, or a proxy in between cut it",
            ),
        }
    }
}

fn refused_token(word: &str) -> Trouble {
    let help = match word {
        "token_missing" => {
            "it got lost on the way: does a proxy drop the Authorization header? --cookie sends it otherwise"
        }
        "token_expired" => "mint a new one: conclave token --probe --ttl 90days, or let --sign-with mint one per probe",
        "token_not_yet_valid" => "compare the clocks of this machine, the server and whoever minted it",
        "token_signature" | "token_issuer" | "token_audience" | "token_malformed" => {
            "conclave token --check - --config FILE < token says what does not fit"
        }
        "token_revoked" | "kicked" => "it, or its user, was revoked: mint another for a user of its own",
        "cookie_origin" => "a cookie needs an Origin that is the server's own or listed exactly: --origin",
        "abuse" => "it kept exceeding a rate: is the limit below what one probe says?",
        _ => "conclave token --check says more",
    };
    Trouble::new(Kind::Auth, format!("closed with 1008 {}", plain(word)), help)
}

fn refused_request(what: &str, answer: &Value) -> Trouble {
    let text = |name: &str| plain(answer.get(name).and_then(Value::as_str).unwrap_or_default());
    let code = text("code");
    let help = match code.as_str() {
        "forbidden" => {
            "the token's rooms claim does not allow it: --room another, or mint with --room 'NAME=join,chat'"
        }
        "unavailable" => "the backplane cannot be reached from this node, or it is overloaded: conclave_backplane_up",
        "rate_limited" => "a limit of messages is below what one probe says (three messages)",
        "bad_room" => "this is no name of a room: 1 to 128 bytes, no control characters, no *",
        "room_full" | "too_many_rooms" => "a limit of rooms or members is reached",
        _ => "the server's log names the session",
    };
    Trouble::new(
        Kind::Wrong,
        format!("{what} was answered {code}: {}", text("message")),
        help,
    )
}

impl Link {
    pub fn new(socket: Socket) -> Self {
        Self { socket, refs: 0 }
    }

    /// The first frame decides: `connected`, or why not.
    pub async fn welcome(&mut self) -> Result<Welcome, Trouble> {
        loop {
            let message = self.next().await.map_err(|lost| lost.trouble(true))?;
            let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).map(plain);
            match text("/type").as_deref() {
                Some("connected") => {
                    return Ok(Welcome {
                        session: text("/session").unwrap_or_default(),
                        user: text("/user/id").unwrap_or_default(),
                        kept: text("/kept").unwrap_or_default(),
                        expires: message.get("expires").and_then(Value::as_u64),
                    });
                }
                // Its close says the rest.
                Some("closing") => {}
                _ => {
                    return Err(Trouble::new(
                        Kind::Wrong,
                        "the first frame is not `connected`",
                        "what answers there is no Conclave of protocol version 1",
                    ));
                }
            }
        }
    }

    /// `join`, answered with `list`.
    pub async fn join(&mut self, room: &str) -> Result<String, Trouble> {
        let list = self.ask(json!({"type": "join", "room": room}), "join").await?;
        let number = |name: &str| list.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok(format!("{}, head {}", plain(room), number("seq")))
    }

    /// Says something in the room, and waits for its `ok` and for hearing it oneself. `acked` tells whoever gives up
    /// meanwhile how far it came.
    pub async fn publish(&mut self, room: &str, nonce: &str, acked: &AtomicBool) -> Result<String, Trouble> {
        self.refs += 1;
        let reference = self.refs;
        let chat = json!({
            "type": "chat", "room": room, "content": {"probe": nonce}, "key": nonce, "ref": reference,
        });
        self.say(&chat).await?;
        let (mut heard, mut seq) = (false, 0);
        while !heard || !acked.load(Ordering::Relaxed) {
            let message = self.next().await.map_err(|lost| lost.trouble(false))?;
            if message.get("ref").and_then(Value::as_u64) == Some(reference) {
                if message.get("type").and_then(Value::as_str) == Some("error") {
                    return Err(refused_request("the message", &message));
                }
                acked.store(true, Ordering::Relaxed);
                seq = message.get("seq").and_then(Value::as_u64).unwrap_or_default();
            }
            heard |= is_ours(&message, nonce);
        }
        Ok(format!("seq {seq}, own delivery"))
    }

    /// Waits for what was said elsewhere.
    pub async fn hear(&mut self, nonce: &str) -> Result<String, Trouble> {
        loop {
            let message = self.next().await.map_err(|lost| lost.trouble(false))?;
            if is_ours(&message, nonce) {
                return Ok("heard on the other node".to_owned());
            }
        }
    }

    /// `ping`, answered with `pong`.
    pub async fn ping(&mut self) -> Result<String, Trouble> {
        self.ask(json!({"type": "ping"}), "ping").await.map(|_| String::new())
    }

    /// Says goodbye, and waits for the answer and the end.
    pub async fn close(mut self) -> Result<String, Trouble> {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let sent = self.socket.send(Message::Close(Some(frame))).await;
        sent.map_err(|error| Lost::from(error).trouble(false))?;
        let mut code = None;
        while let Some(Ok(message)) = self.socket.next().await {
            if let Message::Close(frame) = message {
                code = Some(frame.map_or(1005, |frame| u16::from(frame.code)));
            }
        }
        match code {
            Some(1000) => Ok("1000".to_owned()),
            Some(code) => Err(Trouble::new(
                Kind::Wrong,
                format!("our close with 1000 was answered with {code}"),
                "the node began to close at the same moment, or a proxy in between answers for it",
            )),
            None => Err(Lost::Cut.trouble(false)),
        }
    }

    async fn say(&mut self, message: &Value) -> Result<(), Trouble> {
        let sent = self.socket.send(Message::text(message.to_string())).await;
        match sent {
            Ok(()) => Ok(()),
            // What it said last is in front of the end.
            Err(error) => Err(match self.next().await {
                Err(lost) => lost.trouble(false),
                Ok(_) => Lost::from(error).trouble(false),
            }),
        }
    }

    async fn ask(&mut self, mut message: Value, what: &str) -> Result<Value, Trouble> {
        self.refs += 1;
        let reference = Value::from(self.refs);
        message["ref"] = reference.clone();
        self.say(&message).await?;
        loop {
            let answer = self.next().await.map_err(|lost| lost.trouble(false))?;
            if answer.get("ref") != Some(&reference) {
                continue;
            }
            return match answer.get("type").and_then(Value::as_str) {
                Some("error") => Err(refused_request(what, &answer)),
                _ => Ok(answer),
            };
        }
    }

    /// The next message; what is no JSON is passed over.
    async fn next(&mut self) -> Result<Value, Lost> {
        loop {
            match self.socket.next().await {
                None => return Err(Lost::Cut),
                Some(Ok(Message::Text(text))) => {
                    if let Ok(message) = serde_json::from_str(&text) {
                        return Ok(message);
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (u16::from(frame.code), frame.reason.to_string())
                    });
                    // Lets the answer to it leave.
                    let _ = self.socket.next().await;
                    return Err(Lost::Closed(code, reason));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
}

fn is_ours(message: &Value, nonce: &str) -> bool {
    message.get("type").and_then(Value::as_str) == Some("chat")
        && message.pointer("/content/probe").and_then(Value::as_str) == Some(nonce)
}
