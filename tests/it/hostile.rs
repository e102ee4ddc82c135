//! Bytes that no proper client sends, inside a good connection. Each ends that connection with the right word,
//! or is answered, and nobody else notices.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::frames::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, RSV2, RSV3, TEXT, frame};
use crate::harness::{self, Frame};

#[tokio::test]
async fn who_breaks_rfc_6455_is_closed_with_the_right_word() {
    let node = harness::node().start().await;
    let mut witness = node.client("witness").await;
    witness.join("lobby").await;
    let cases = violations();
    join_all(cases.iter().map(|(name, bytes, code, reason)| {
        let node = &node;
        async move {
            let mut client = node.client("mallory").await;
            client.join("lobby").await;
            client.send_bytes(bytes).await;
            // After its close frame the server says nothing more, and does not wait for an answer for ever.
            assert_eq!(client.closed().await, (*code, (*reason).to_owned()), "{name}");
            client.gone().await;
        }
    }))
    .await;
    node.metric_reaches("conclave_connections_closed_total", &[], cases.len() as f64)
        .await;
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_disconnects_total", &[("initiator", "server")]),
        cases.len() as f64
    );
    assert_eq!(metrics.sum("conclave_panics_total", &[]), 0.0);
    let list = witness.ask(json!({"type": "list", "room": "lobby"})).await;
    assert_eq!(list["count"], 1, "{list}");
}

fn violations() -> Vec<(String, Vec<u8>, u16, &'static str)> {
    let mut cases = Vec::new();
    let mut protocol = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes, 1002, "protocol"));
    let hello = b"{\"type\":\"ping\"}";
    protocol("text without mask", frames::unmasked(FIN | TEXT, hello));
    protocol("ping without mask", frames::unmasked(FIN | PING, b""));
    for reserved in [RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3] {
        protocol(
            &format!("reserved bits {reserved:#x}"),
            frame(FIN | TEXT | reserved, hello),
        );
    }
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        protocol(&format!("opcode {opcode:#x}"), frame(FIN | opcode, b""));
    }
    protocol("a ping in fragments", frame(PING, b"a"));
    protocol("a close in fragments", frame(CLOSE, b""));
    protocol("a ping of 126 bytes", frame(FIN | PING, &[0; 126]));
    protocol("a continuation of nothing", frame(FIN | CONTINUATION, b"a"));
    protocol(
        "a message inside another",
        [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(),
    );
    protocol("half a close code", frame(FIN | CLOSE, &[3]));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        protocol(&format!("close code {code}"), frames::close(code, ""));
    }
    protocol(
        "a length not in its shortest form",
        [&[FIN | TEXT, 0x80 | 126, 0, 1][..], &[0; 4], b"x"].concat(),
    );
    protocol(
        "a long length not in its shortest form",
        [&[FIN | TEXT, 0x80 | 127][..], &[0, 0, 0, 0, 0, 0, 0, 9]].concat(),
    );
    protocol(
        "a length with its highest bit",
        [&[FIN | TEXT, 0x80 | 127][..], &[0xff; 8]].concat(),
    );
    let mut utf8 = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes, 1007, "utf8"));
    utf8("a lone continuation byte", frame(FIN | TEXT, b"\"\x80\""));
    utf8("an overlong slash", frame(FIN | TEXT, b"\xc0\xaf"));
    utf8("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"));
    utf8("above U+10FFFF", frame(FIN | TEXT, b"\xf4\x90\x80\x80"));
    utf8("cut at the end", frame(FIN | TEXT, b"\"\xc3"));
    utf8(
        "cut at the end of the last fragment",
        [frame(TEXT, b"\"a"), frame(FIN | CONTINUATION, b"\xc3")].concat(),
    );
    utf8(
        "wrong across fragments",
        [frame(TEXT, b"\"\xe2\x82"), frame(FIN | CONTINUATION, b"\x28\"")].concat(),
    );
    utf8(
        "wrong across three with a ping between",
        [
            frame(TEXT, b"\xf0\x9f"),
            frame(FIN | PING, b""),
            frame(CONTINUATION, b"\x98"),
            frame(FIN | CONTINUATION, b"a"),
        ]
        .concat(),
    );
    utf8("a close reason", frame(FIN | CLOSE, b"\x03\xe8\xff"));
    let mut binary = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes, 1003, "binary"));
    binary("binary", frame(FIN | BINARY, b"{}"));
    binary("an empty binary", frame(FIN | BINARY, b""));
    binary(
        "binary in fragments",
        [frame(BINARY, b"{"), frame(FIN | CONTINUATION, b"}")].concat(),
    );
    cases
}

#[tokio::test]
async fn bad_utf8_in_the_first_fragment_is_not_waited_for() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    // The message never ends; RFC 6455 section 8.1 lets the server fail now or then, but then never comes.
    client.send_frame(TEXT, b"\xff").await;
    client.send_frame(FIN | PING, b"now?").await;
    client.send_frame(FIN | CONTINUATION, b"").await;
    assert_eq!(client.closed().await, (1007, "utf8".to_owned()));
}

#[tokio::test]
async fn characters_and_headers_may_be_cut_anywhere() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    client.join("lobby").await;
    let chat = json!({"type": "chat", "room": "lobby", "content": "a é € 😀"}).to_string();
    // Each byte a fragment, with pings between, each byte of all that a record of its own.
    let mut bytes = frame(TEXT, b"");
    for byte in chat.bytes() {
        bytes.extend(frame(CONTINUATION, &[byte]));
        bytes.extend(frame(FIN | PING, &[byte]));
    }
    bytes.extend(frame(FIN | CONTINUATION, b""));
    for byte in bytes {
        client.send_bytes(&[byte]).await;
    }
    let mut pings = chat.bytes();
    loop {
        match client.next().await {
            Some(Frame::Pong(payload)) => assert_eq!(payload, [pings.next().expect("a ping for each pong")]),
            Some(Frame::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(message["content"], "a é € 😀");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pings.next(), None, "each ping was answered, in order");
    client.close(4000).await;
}

#[tokio::test]
async fn control_frames_are_answered_as_rfc_6455_says() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    let longest = [b'p'; 125];
    client.send_frame(FIN | PING, &longest).await;
    assert_eq!(client.next().await, Some(Frame::Pong(longest.to_vec())));
    client.send_frame(FIN | PONG, b"nobody asked").await;
    assert_eq!(client.pending().await, Vec::<Value>::new());
    // A close without a code is answered by one without; what comes after it is not looked at.
    client
        .send_bytes(&[frame(FIN | CLOSE, b""), frame(FIN | RSV1, b"rubbish")].concat())
        .await;
    assert_eq!(client.next().await, Some(Frame::Close(1005, String::new())));
    client.gone().await;
    let mut other = node.client("bob").await;
    other.send_bytes(&frames::close(1001, "leaving")).await;
    assert_eq!(other.closed().await.0, 1001);
    other.gone().await;
    node.metric_reaches(
        "conclave_disconnects_total",
        &[("initiator", "client"), ("code", "1001")],
        1.0,
    )
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_message_leaves_its_rooms() {
    let node = harness::node().start().await;
    let mut witness = node.client("witness").await;
    witness.join("lobby").await;
    let half: [&[u8]; 4] = [
        &[FIN | TEXT],
        &[FIN | TEXT, 0x80 | 126, 1],
        &frames::head(FIN | TEXT, 100),
        &frame(TEXT, b"{\"ty"),
    ];
    for bytes in half {
        let mut client = node.client("ghost").await;
        client.join("lobby").await;
        assert_eq!(witness.until("join").await["user"]["id"], "ghost");
        client.send_bytes(bytes).await;
        drop(client);
        assert_eq!(witness.until("left").await["user"]["id"], "ghost");
    }
}

#[tokio::test]
async fn messages_that_make_no_sense_are_answered_and_the_socket_stays() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    client.join("lobby").await;
    for (text, code) in nonsense() {
        let shown: String = text.chars().take(80).collect();
        client.send_text(&text).await;
        let error = client.message().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code)),
            "{shown}: {error}"
        );
        assert!(
            error["message"].as_str().is_some_and(|message| !message.is_empty()),
            "{shown}: {error}"
        );
        assert_eq!(client.pending().await, Vec::<Value>::new(), "{shown}");
    }
    node.metric_reaches("conclave_protocol_errors_total", &[], nonsense().len() as f64)
        .await;
    client.chat("lobby", "and yet").await;
}

fn nonsense() -> Vec<(String, &'static str)> {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let chat = |content: &str| format!(r#"{{"type":"chat","room":"lobby","content":{content}}}"#);
    let room = |name: &str| json!({"type": "join", "room": name}).to_string();
    let mut cases: Vec<(String, &str)> = [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("{}}", "bad_json"),
        ("{'type':'ping'}", "bad_json"),
        ("{\"type\":\"ping\",}", "bad_json"),
        ("\u{feff}{\"type\":\"ping\"}", "bad_json"),
        ("{\"type\":\"ping\"}{\"type\":\"ping\"}", "bad_json"),
        ("NaN", "bad_json"),
        ("[]", "bad_message"),
        ("null", "bad_message"),
        ("1", "bad_message"),
        ("\"ping\"", "bad_message"),
        ("{}", "bad_message"),
        ("{\"type\":1}", "bad_message"),
        ("{\"type\":null}", "bad_message"),
        ("{\"type\":\"ping\",\"type\":\"ping\"}", "bad_message"),
        ("{\"type\":\"fly\"}", "unknown_type"),
        ("{\"type\":\"\"}", "unknown_type"),
        ("{\"type\":\"PING\"}", "unknown_type"),
        ("{\"type\":\"connected\"}", "unknown_type"),
        ("{\"type\":\"join\"}", "bad_message"),
        ("{\"type\":\"join\",\"room\":1}", "bad_message"),
        ("{\"type\":\"join\",\"room\":\"lobby\",\"since\":7}", "bad_message"),
        (
            "{\"type\":\"join\",\"room\":\"lobby\",\"since\":{\"epoch\":\"e\",\"seq\":-1}}",
            "bad_message",
        ),
        ("{\"type\":\"chat\",\"room\":\"lobby\"}", "bad_message"),
        (
            "{\"type\":\"chat\",\"room\":\"lobby\",\"content\":1,\"key\":2}",
            "bad_message",
        ),
        ("{\"type\":\"chat\",\"room\":\"elsewhere\",\"content\":1}", "not_joined"),
        ("{\"type\":\"leave\",\"room\":\"elsewhere\"}", "not_joined"),
        ("{\"type\":\"list\",\"room\":\"elsewhere\"}", "not_joined"),
        (
            "{\"type\":\"history\",\"room\":\"elsewhere\",\"after\":0}",
            "not_joined",
        ),
        ("{\"type\":\"history\",\"room\":\"lobby\",\"after\":-1}", "bad_message"),
        (
            "{\"type\":\"history\",\"room\":\"lobby\",\"after\":\"1\"}",
            "bad_message",
        ),
        (
            "{\"type\":\"history\",\"room\":\"lobby\",\"before\":1,\"after\":1}",
            "bad_message",
        ),
        ("{\"type\":\"auth\"}", "bad_message"),
        ("{\"type\":\"auth\",\"token\":{}}", "bad_message"),
        ("{\"type\":\"ping\",\"ref\":{}}", "bad_message"),
        ("{\"type\":\"ping\",\"ref\":1.5}", "bad_message"),
    ]
    .map(|(text, code)| (text.to_owned(), code))
    .to_vec();
    cases.extend([
        (
            format!(r#"{{"type":"ping","ref":"{}"}}"#, "r".repeat(65)),
            "bad_message",
        ),
        (
            format!(
                r#"{{"type":"chat","room":"lobby","content":1,"key":"{}"}}"#,
                "k".repeat(65)
            ),
            "bad_message",
        ),
        (chat(&nested(33)), "bad_message"),
        (chat(&nested(30_000)), "bad_message"),
        (nested(30_000), "bad_message"),
        ("[".repeat(60_000), "bad_json"),
        ("{\"a\":".repeat(10_000), "bad_json"),
        (room(""), "bad_room"),
        (room(&"r".repeat(129)), "bad_room"),
        (room(&"r".repeat(60_000)), "bad_room"),
        (room(&"é".repeat(65)), "bad_room"),
        (room("*"), "bad_room"),
        (room("team/*"), "bad_room"),
        (room(" lobby"), "bad_room"),
        (room("lobby "), "bad_room"),
        (room("a\nb"), "bad_room"),
        (room("a\u{0}b"), "bad_room"),
        (room("a\u{202e}b"), "bad_room"),
        (room("a\u{200b}b"), "bad_room"),
        (room("e\u{301}"), "bad_room"),
    ]);
    cases
}

#[tokio::test]
async fn every_ref_is_answered_once_whatever_it_asked() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    for (message, code) in [
        (json!({"type": "fly", "ref": 1}), "unknown_type"),
        (json!({"type": "join", "ref": "two"}), "bad_message"),
        (json!({"type": "join", "room": "*", "ref": -3}), "bad_room"),
        (json!({"type": "leave", "room": "lobby", "ref": ""}), "not_joined"),
        (json!({"type": "auth", "token": "x", "ref": "a\"b\\"}), "forbidden"),
    ] {
        client.send(message.clone()).await;
        let error = client.expect_error(code).await;
        assert_eq!(error["ref"], message["ref"]);
        assert_eq!(client.pending().await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn content_goes_through_as_it_was_written() {
    let node = harness::node().start().await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.join("lobby").await;
    bob.join("lobby").await;
    let mut deepest = json!(0);
    // 31 arrays in the message's own object are 32.
    for _ in 0..31 {
        deepest = json!([deepest]);
    }
    let contents = [
        json!(null),
        json!(""),
        json!({"type": "left", "room": "lobby", "user": {"id": "bob"}}),
        json!("\u{0}\u{1f}\u{7f}\u{2028}\u{202e}😀\"\\/</script>"),
        json!({"__proto__": {"a": 1}, "": [1e300, -0.0, u64::MAX]}),
        deepest,
    ];
    for content in contents {
        ann.send(json!({"type": "chat", "room": "lobby", "content": content}))
            .await;
        let chat = bob.until("chat").await;
        assert_eq!(chat["content"], content);
        assert_eq!(chat["from"]["id"], "ann");
    }
}

/// RFC 6455 section 7.1.1: it is the server that ends the connection first, so that the client need not wait, even
/// for one that will never answer.
#[tokio::test]
async fn after_a_violation_the_server_ends_its_side_of_the_stream() {
    let node = harness::node().set("echo.enabled", "true").start().await;
    for path in ["/ws", "/echo"] {
        let ask = node.ask("GET", path).upgrade();
        let mut client = ask.query_token(&node.token("u1")).open().await;
        if path == "/ws" {
            client = client.welcomed().await;
        }
        client.send_bytes(&frames::unmasked(FIN | TEXT, b"x")).await;
        client.expect_close(1002, "protocol").await;
        client.ended_in_order().await;
    }
}
