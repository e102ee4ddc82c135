use proptest::prelude::*;
use serde_json::Value;

use super::*;

const USER: &str = r#"{"id":"u7","name":"Ann"}"#;

/// Writes a frame after bytes that are there already, and compares it to the letter: field order is a promise too.
fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut out = b"before{".to_vec();
    write(&mut out);
    let text = String::from_utf8(out).unwrap();
    let frame = text.strip_prefix("before{").unwrap();
    assert_eq!(frame, expected);
    assert!(serde_json::from_str::<Value>(frame).unwrap().is_object());
}

fn reference() -> Option<Ref<'static>> {
    Ref::from_json(r#""r1""#)
}

#[test]
fn connected() {
    let frame = Connected {
        session: "s-9f",
        user_json: USER,
        heartbeat_s: 30,
        expires: Some(1_767_225_600),
        kept: "memory",
        message_bytes: 65_536,
        rooms: 128,
        users_shown: 100,
        messages_per_second: 0,
    };
    check(
        |out| frame.write(out),
        r#"{"type":"connected","protocol":1,"session":"s-9f","user":{"id":"u7","name":"Ann"},"heartbeat":30,"expires":1767225600,"kept":"memory","limits":{"message_bytes":65536,"rooms":128,"users_shown":100,"messages_per_second":0}}"#,
    );
    check(
        |out| Connected { expires: None, ..frame }.write(out),
        r#"{"type":"connected","protocol":1,"session":"s-9f","user":{"id":"u7","name":"Ann"},"heartbeat":30,"kept":"memory","limits":{"message_bytes":65536,"rooms":128,"users_shown":100,"messages_per_second":0}}"#,
    );
}

#[test]
fn list() {
    let frame = List {
        reference: reference(),
        room_json: r#""lobby""#,
        users_json: r#"{"id":"a"},{"id":"b"}"#,
        count: 2,
        epoch: "e1",
        seq: 41,
        as_of_ms: 1_767_225_600_000,
        recovered: Some(true),
    };
    check(
        |out| frame.write(out),
        r#"{"type":"list","ref":"r1","room":"lobby","users":[{"id":"a"},{"id":"b"}],"count":2,"epoch":"e1","seq":41,"as_of":1767225600000,"recovered":true}"#,
    );
    check(
        |out| {
            List {
                reference: None,
                users_json: "",
                count: 0,
                recovered: None,
                ..frame
            }
            .write(out);
        },
        r#"{"type":"list","room":"lobby","users":[],"count":0,"epoch":"e1","seq":41,"as_of":1767225600000}"#,
    );
    check(
        |out| {
            List {
                recovered: Some(false),
                ..frame
            }
            .write(out);
        },
        r#"{"type":"list","ref":"r1","room":"lobby","users":[{"id":"a"},{"id":"b"}],"count":2,"epoch":"e1","seq":41,"as_of":1767225600000,"recovered":false}"#,
    );
}

#[test]
fn presence_and_count() {
    let frame = Presence {
        joined: true,
        room_json: r#""lobby""#,
        user_json: USER,
        time_ms: 5,
    };
    check(
        |out| frame.write(out),
        r#"{"type":"join","room":"lobby","user":{"id":"u7","name":"Ann"},"time":5}"#,
    );
    check(
        |out| Presence { joined: false, ..frame }.write(out),
        r#"{"type":"left","room":"lobby","user":{"id":"u7","name":"Ann"},"time":5}"#,
    );
    check(
        |out| {
            Count {
                room_json: r#""lobby""#,
                count: 12_345,
            }
            .write(out);
        },
        r#"{"type":"count","room":"lobby","count":12345}"#,
    );
}

#[test]
fn chat_and_message() {
    let frame = Chat {
        room_json: r#""lobby""#,
        seq: 42,
        epoch: Some("e2"),
        from_json: USER,
        content: r#"{"a": [1]}"#,
        time_ms: u64::MAX,
    };
    check(
        |out| frame.write(out),
        r#"{"type":"chat","room":"lobby","seq":42,"epoch":"e2","from":{"id":"u7","name":"Ann"},"content":{"a": [1]},"time":18446744073709551615}"#,
    );
    check(
        |out| {
            Chat {
                epoch: None,
                seq: 0,
                content: "\"hi\"",
                time_ms: 10,
                ..frame
            }
            .write(out);
        },
        r#"{"type":"chat","room":"lobby","seq":0,"from":{"id":"u7","name":"Ann"},"content":"hi","time":10}"#,
    );
    let message = Message {
        from_json: Some(USER),
        content: "null",
        time_ms: 5,
    };
    check(
        |out| message.write(out),
        r#"{"type":"message","from":{"id":"u7","name":"Ann"},"content":null,"time":5}"#,
    );
    check(
        |out| {
            Message {
                from_json: None,
                ..message
            }
            .write(out);
        },
        r#"{"type":"message","content":null,"time":5}"#,
    );
}

#[test]
fn history() {
    let chats: [&[u8]; 2] = [br#"{"seq":7}"#, br#"{"seq":8}"#];
    let frame = History {
        reference: reference(),
        room_json: r#""lobby""#,
        epoch: "e1",
        messages: &chats,
        first: 7,
        more: true,
    };
    check(
        |out| frame.write(out),
        r#"{"type":"history","ref":"r1","room":"lobby","epoch":"e1","messages":[{"seq":7},{"seq":8}],"first":7,"more":true}"#,
    );
    check(
        |out| {
            History {
                reference: None,
                messages: &[],
                first: 1,
                more: false,
                ..frame
            }
            .write(out);
        },
        r#"{"type":"history","room":"lobby","epoch":"e1","messages":[],"first":1,"more":false}"#,
    );
}

#[test]
fn reset_and_removed() {
    use {RemovedReason as Gone, ResetReason as Why};
    for (reason, word) in [
        (Why::Trimmed, "trimmed"),
        (Why::Rewound, "rewound"),
        (Why::Epoch, "epoch"),
    ] {
        check(
            |out| {
                Reset {
                    room_json: r#""lobby""#,
                    epoch: "e2",
                    seq: 40,
                    reason,
                }
                .write(out);
            },
            &format!(r#"{{"type":"reset","room":"lobby","epoch":"e2","seq":40,"reason":"{word}"}}"#),
        );
    }
    for (reason, word) in [
        (Gone::Kicked, "kicked"),
        (Gone::Grant, "grant"),
        (Gone::Closed, "closed"),
    ] {
        check(
            |out| {
                Removed {
                    room_json: r#""lobby""#,
                    reason,
                }
                .write(out);
            },
            &format!(r#"{{"type":"removed","room":"lobby","reason":"{word}"}}"#),
        );
    }
}

#[test]
fn ok() {
    let frame = Done {
        reference: Ref::from_json("-1").unwrap(),
        expires: None,
        kept: None,
    };
    check(|out| frame.write(out), r#"{"type":"ok","ref":-1}"#);
    check(
        |out| {
            Done {
                expires: Some(9),
                ..frame
            }
            .write(out);
        },
        r#"{"type":"ok","ref":-1,"expires":9}"#,
    );
    let kept = Some(Kept {
        room_json: r#""lobby""#,
        epoch: "e1",
        seq: 3,
    });
    check(
        |out| Done { kept, ..frame }.write(out),
        r#"{"type":"ok","ref":-1,"room":"lobby","epoch":"e1","seq":3}"#,
    );
}

#[test]
fn error() {
    let frame = Error {
        reference: reference(),
        code: ErrorCode::RateLimited,
        message: "say \"less\"\n",
        reason: Some("abuse"),
        retry_after_ms: Some(250),
    };
    check(
        |out| frame.write(out),
        r#"{"type":"error","ref":"r1","code":"rate_limited","message":"say \"less\"\n","reason":"abuse","retry_after_ms":250}"#,
    );
    check(
        |out| {
            Error {
                reference: None,
                reason: None,
                retry_after_ms: None,
                ..frame
            }
            .write(out);
        },
        r#"{"type":"error","code":"rate_limited","message":"say \"less\"\n"}"#,
    );
}

#[test]
fn pong_and_closing() {
    check(
        |out| {
            Pong {
                reference: reference(),
                time_ms: 5,
            }
            .write(out);
        },
        r#"{"type":"pong","ref":"r1","time":5}"#,
    );
    check(
        |out| {
            Pong {
                reference: None,
                time_ms: 5,
            }
            .write(out);
        },
        r#"{"type":"pong","time":5}"#,
    );
    check(
        |out| {
            Closing {
                reason: "restart",
                reconnect_after_ms: 1500,
            }
            .write(out);
        },
        r#"{"type":"closing","reason":"restart","reconnect_after_ms":1500}"#,
    );
}

#[test]
fn users_show_what_their_token_says() {
    let info = serde_json::from_str(r#"{"team": "red"}"#).unwrap();
    let user = User {
        id: "u\"7",
        name: Some("Ann"),
        info: Some(info),
    };
    assert_eq!(user.to_json(), r#"{"id":"u\"7","name":"Ann","info":{"team": "red"}}"#);
    assert_eq!(
        User {
            name: None,
            info: None,
            ..user
        }
        .to_json(),
        r#"{"id":"u\"7"}"#
    );
}

proptest! {
    #[test]
    fn quoted_text_reads_back(text in any::<String>()) {
        prop_assert_eq!(serde_json::from_str::<String>(&quote(&text)).unwrap(), text);
    }

    #[test]
    fn any_chat_reads_back(room in ".*", id in ".*", name in ".*", epoch in ".*", content in ".*", seq: u64, time_ms: u64) {
        let (room_json, content_json) = (quote(&room), quote(&content));
        let from_json = User { id: &id, name: Some(&name), info: None }.to_json();
        let mut out = Vec::new();
        Chat { room_json: &room_json, seq, epoch: Some(&epoch), from_json: &from_json, content: &content_json, time_ms }
            .write(&mut out);
        let expected = serde_json::json!({
            "type": "chat", "room": room, "seq": seq, "epoch": epoch, "from": { "id": id, "name": name },
            "content": content, "time": time_ms,
        });
        prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }
}
