//! The TLS under it all, proper and improper.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::frames::{self, FIN, TEXT};
use crate::harness::node::read_to_end;
use crate::harness::records::{ALERT, APPLICATION_DATA, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED, Records};
use crate::harness::{self, Node};

#[tokio::test]
async fn tls_1_2_and_1_3_carry_a_room() {
    let node = harness::node().start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ask = node
            .socket()
            .query_token(&node.token("ann"))
            .tls(node.tls_with(&[version]));
        let mut client = ask.open().await.welcomed().await;
        client.join("lobby").await;
        client
            .send(json!({"type": "chat", "room": "lobby", "content": "hi"}))
            .await;
        assert_eq!(client.until("chat").await["content"], "hi");
        // More than one record each way.
        let large = "x".repeat(60_000);
        client
            .send(json!({"type": "chat", "room": "lobby", "content": large}))
            .await;
        assert_eq!(client.until("chat").await["content"], large);
        client.close(1000).await;
    }
}

#[tokio::test]
async fn alpn_chooses_what_both_know() {
    let node = harness::node().start().await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["acme", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = node.tls().alpn(offered).connect().await;
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            chosen.map(str::as_bytes),
            "{offered:?}"
        );
    }
    assert!(
        node.tls().alpn(&["acme"]).try_connect().await.is_err(),
        "RFC 7301 section 3.2: no common protocol"
    );
    // Who offers nothing speaks HTTP/1.1.
    node.client("ann").await.close(1000).await;
}

#[tokio::test]
async fn a_session_is_resumed_with_a_ticket() {
    let node = harness::node().start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // Both connections share the ticket store of one configuration.
        let tls = node.tls_with(&[version]);
        let kind = async || {
            let mut stream = tls.connect().await;
            // In TLS 1.3 tickets come with the first answer.
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await
                .unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.get_ref().1.handshake_kind()
        };
        assert_eq!(kind().await, Some(rustls::HandshakeKind::Full), "{version:?}");
        assert_eq!(kind().await, Some(rustls::HandshakeKind::Resumed), "{version:?}");
    }
}

/// A socket in the room `lobby`, on records of our own.
async fn in_lobby(node: &Node) -> Records {
    let mut records = Records::connect(node).await;
    records
        .send(&node.socket().query_token(&node.token("mallory")).bytes())
        .await;
    records.hear(r#""type":"connected""#).await;
    say(&mut records, &json!({"type": "join", "room": "lobby"})).await;
    records.hear(r#""type":"list""#).await;
    records
}

async fn say(records: &mut Records, message: &Value) {
    records.send(&frames::text(&message.to_string())).await;
}

#[tokio::test]
async fn half_a_key_update_holds_up_nothing() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for update in [KEY_UPDATE, KEY_UPDATE_REQUESTED] {
        for cut in 1..update.len() {
            let mut mallory = in_lobby(&node).await;
            let (first, second) = update.split_at(cut);
            // Half of the message in a record of its own: rustls keeps it until the rest comes.
            let record = mallory.seal(HANDSHAKE, first);
            mallory.write(&record).await;
            // That it has arrived is known only by what happens next: two broadcasts, one of them large.
            ann.chat("lobby", "while half of it is there").await;
            mallory.hear("while half of it is there").await;
            ann.chat("lobby", format!("{} large", "x".repeat(40_000))).await;
            mallory.hear("x large").await;
            let record = mallory.seal(HANDSHAKE, second);
            mallory.write(&record).await;
            mallory.update_our_keys();
            say(
                &mut mallory,
                &json!({"type": "chat", "room": "lobby", "content": "under new keys"}),
            )
            .await;
            assert_eq!(
                ann.find("new keys", |m| m["content"] == "under new keys").await["from"]["id"],
                "mallory"
            );
            mallory.hear("under new keys").await;
            assert_eq!(mallory.key_updates, usize::from(update == KEY_UPDATE_REQUESTED));
            mallory.send(&frames::close(1000, "")).await;
            mallory.end().await;
        }
    }
    assert_eq!(node.metrics().await.sum("conclave_panics_total", &[]), 0.0);
}

#[tokio::test]
async fn half_a_record_holds_up_nothing() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let mut mallory = in_lobby(&node).await;
    let chat = frames::text(&json!({"type": "chat", "room": "lobby", "content": "in pieces"}).to_string());
    for (kind, payload) in [(HANDSHAKE, &KEY_UPDATE_REQUESTED[..]), (APPLICATION_DATA, &chat)] {
        let record = mallory.seal(kind, payload);
        for (at, byte) in record.iter().enumerate() {
            mallory.write(&[*byte]).await;
            if at % 7 == 0 {
                let said = format!("at byte {at} of {kind}");
                ann.chat("lobby", said.as_str()).await;
                mallory.hear(&said).await;
            }
        }
        if kind == HANDSHAKE {
            mallory.update_our_keys();
        }
    }
    assert_eq!(
        ann.find("it", |m| m["content"] == "in pieces").await["from"]["id"],
        "mallory"
    );
    mallory.hear("in pieces").await;
    assert_eq!(mallory.key_updates, 1);
}

#[tokio::test]
async fn a_flood_of_key_updates_ends_its_connection_only() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for update in [KEY_UPDATE, KEY_UPDATE_REQUESTED] {
        let mut mallory = in_lobby(&node).await;
        ann.until("join").await;
        let mut flood = Vec::new();
        for _ in 0..5000 {
            flood.extend(mallory.seal(HANDSHAKE, &update));
            mallory.update_our_keys();
        }
        mallory.offer(&flood).await;
        ann.until("left").await;
    }
    ann.chat("lobby", "after the flood").await;
}

#[tokio::test]
async fn key_updates_between_messages_are_no_flood() {
    let node = harness::node().start().await;
    let mut mallory = in_lobby(&node).await;
    for number in 0..200 {
        let update = mallory.seal(
            HANDSHAKE,
            if number % 2 == 0 {
                &KEY_UPDATE
            } else {
                &KEY_UPDATE_REQUESTED
            },
        );
        mallory.update_our_keys();
        let ping = mallory.seal(
            APPLICATION_DATA,
            &frames::text(&json!({"type": "ping", "ref": number}).to_string()),
        );
        mallory.write(&[update, ping].concat()).await;
        mallory.hear(&format!(r#""ref":{number},"#)).await;
    }
    assert_eq!(mallory.key_updates, 100);
}

#[tokio::test]
async fn records_that_break_tls_end_their_connection_only() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let breaks: [(&str, fn(&mut Records) -> Vec<u8>); 10] = [
        ("not sealed by us", |_| {
            [&[APPLICATION_DATA, 3, 3, 0, 40][..], &[7; 40]].concat()
        }),
        ("a changed bit", |records| {
            let mut record = records.seal(APPLICATION_DATA, b"text");
            *record.last_mut().unwrap() ^= 1;
            record
        }),
        ("a record twice", |records| {
            records.seal(APPLICATION_DATA, b"\x8a\x80\0\0\0\0").repeat(2)
        }),
        ("plain text", |_| {
            [&[APPLICATION_DATA - 1, 3, 3, 0, 5][..], &KEY_UPDATE].concat()
        }),
        ("an unknown kind", |records| records.seal(99, b"rubbish")),
        ("a second hello", |records| {
            records.seal(HANDSHAKE, &[1, 0, 0, 4, 3, 3, 0, 0])
        }),
        ("a handshake message that never ends", |records| {
            let mut bytes = records.seal(HANDSHAKE, &[24, 0, 0xff, 0xff]);
            for _ in 0..10 {
                bytes.extend(records.seal(HANDSHAKE, &[0; 16_000]));
            }
            bytes
        }),
        ("a KeyUpdate of another kind", |records| {
            records.seal(HANDSHAKE, &[24, 0, 0, 1, 9])
        }),
        ("a record longer than any", |_| {
            [&[APPLICATION_DATA, 3, 3, 0xff, 0xff][..], &[0; 70_000]].concat()
        }),
        ("a fatal alert", |records| records.seal(ALERT, &[2, 80])),
    ];
    for (name, bytes) in breaks {
        let mut mallory = in_lobby(&node).await;
        ann.find(name, |message| message["type"] == "join").await;
        let bytes = bytes(&mut mallory);
        // The server may be gone before it has read all of it.
        mallory.offer(&bytes).await;
        ann.find(name, |message| message["type"] == "left").await;
        mallory.end().await;
    }
    assert_eq!(node.metrics().await.sum("conclave_panics_total", &[]), 0.0);
}

#[tokio::test]
async fn the_end_of_tls_is_the_end_of_the_socket() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let mut mallory = in_lobby(&node).await;
    ann.until("join").await;
    // close_notify and no close frame.
    let record = mallory.seal(ALERT, &[1, 0]);
    mallory.write(&record).await;
    ann.until("left").await;
    mallory.end().await;
}

#[tokio::test]
async fn handshakes_that_go_wrong_are_told_and_counted() {
    let node = harness::node().start().await;
    // SSL 3, a hello of rubbish, a record that is no handshake.
    let hellos: [(&str, &[u8]); 4] = [
        ("rubbish in a hello", b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x00\x00"),
        ("a hello for TLS 1.0", TLS_1_0_HELLO),
        ("a server's hello", b"\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03"),
        ("a record of 64 KiB", b"\x16\x03\x01\xff\xff\x01"),
    ];
    for (name, hello) in hellos {
        let mut stream = node.tcp().await;
        stream.write_all(hello).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert_eq!(answer.first(), Some(&ALERT), "{name}: {answer:?}");
    }
    node.metric_reaches(
        "conclave_handshakes_total",
        &[("result", "tls_error")],
        hellos.len() as f64,
    )
    .await;
    let strangers: [&[u8]; 3] = [b"\x00\x00\x00\x00", b"\x80\x2e\x01\x00\x02", b"\x05\x01\x00"];
    for bytes in strangers {
        let mut stream = node.tcp().await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"", "{bytes:?}");
    }
    node.metric_reaches("conclave_handshakes_total", &[("result", "not_tls")], 3.0)
        .await;
    node.client("ann").await.close(1000).await;
}

/// One cipher suite of its time, no extensions.
const TLS_1_0_HELLO: &[u8] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01\
    0123456789abcdef0123456789abcdef\x00\x00\x02\x00\x2f\x01\x00";

#[tokio::test]
async fn a_request_may_come_byte_by_byte_and_a_frame_right_behind_it() {
    let node = harness::node().start().await;
    let request = node.socket().query_token(&node.token("ann")).bytes();
    let join = frames::text(&json!({"type": "join", "room": "lobby", "ref": 1}).to_string());
    let mut whole = Records::connect(&node).await;
    // The request and the first frames in one record.
    whole
        .send(&[&request[..], &join, &frames::frame(FIN | TEXT, b"{")].concat())
        .await;
    for heard in [
        "101 Switching Protocols",
        r#""type":"connected""#,
        r#""type":"list""#,
        r#""code":"bad_json""#,
    ] {
        whole.hear(heard).await;
    }
    let mut cut = Records::connect(&node).await;
    for byte in [&request[..], &join].concat() {
        cut.send(&[byte]).await;
        // Empty records are allowed (RFC 8446 section 5.1) and mean nothing.
        cut.send(b"").await;
    }
    cut.hear(r#""type":"list""#).await;
}
