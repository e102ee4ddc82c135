//! Requests: what is no WebSocket, what is one in HTTP/2, and what never becomes a request at all.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::frames;
use crate::harness::http2::Http2;
use crate::harness::node::{ORIGIN, read_to_end};
use crate::harness::request::{ACCEPT, Stream, read_body, read_head};
use crate::harness::{self, Client};

#[tokio::test]
async fn paths_and_methods_are_kept_apart() {
    let node = harness::node().start().await;
    for (method, path, status) in [
        ("GET", "/nowhere", 404),
        ("GET", "/ws/", 404),
        ("GET", "/WS", 404),
        ("GET", "/ws/../ws", 404),
        ("GET", "//ws", 404),
        // Off unless configured.
        ("GET", "/echo", 404),
        ("POST", "/session", 404),
        // The admin listener's alone.
        ("GET", "/metrics", 404),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("DELETE", "/livez", 405),
        ("POST", "/ws", 405),
        ("OPTIONS", "/ws", 405),
    ] {
        let answer = node.ask(method, path).answer().await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    for method in ["POST", "PUT", "HEAD", "BREW"] {
        let answer = node
            .socket()
            .method(method)
            .query_token(&node.token("ann"))
            .try_open()
            .await
            .err();
        let answer = answer.unwrap_or_else(|| panic!("{method} was upgraded"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method}");
    }
}

#[tokio::test]
async fn a_request_without_upgrade_is_told_what_is_spoken_here() {
    let node = harness::node().start().await;
    let token = node.token("ann");
    let ask = || node.socket().query_token(&token);
    let plain = [
        ask().replace("Upgrade", None),
        ask().replace("Connection", None),
        ask().replace("Connection", Some("keep-alive")),
        ask().replace("Upgrade", Some("h2c")),
        ask().replace("Sec-WebSocket-Version", None),
        ask().replace("Sec-WebSocket-Version", Some("8")),
        ask().replace("Sec-WebSocket-Version", Some("13, 8")),
        ask().header("Sec-WebSocket-Version", "13"),
    ];
    for ask in plain {
        let answer = ask
            .try_open()
            .await
            .err()
            .unwrap_or_else(|| panic!("upgraded: {ask:?}"));
        assert_eq!(answer.status, 426, "{ask:?}");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
    }
    let broken = [
        ask().replace("Sec-WebSocket-Key", None),
        ask().replace("Sec-WebSocket-Key", Some("c2hvcnQ=")),
        ask().replace("Sec-WebSocket-Key", Some("not base64 at all, by far")),
        ask().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        // Whoever is in between may take a body for frames, or frames for a request.
        ask().header("Transfer-Encoding", "chunked"),
        ask().header("Content-Length", "5"),
        ask().replace("Host", None),
        ask().header("Content-Length", "0").header("Content-Length", "7"),
        ask().header("Space ", "before the colon"),
    ];
    for ask in broken {
        let answer = ask
            .try_open()
            .await
            .err()
            .unwrap_or_else(|| panic!("upgraded: {ask:?}"));
        assert_eq!(answer.status, 400, "{ask:?}");
    }
    let client = ask()
        .replace("Connection", Some("keep-alive, UPGRADE"))
        .replace("Upgrade", Some("WebSocket"))
        .open()
        .await;
    assert_eq!(client.answer.header("sec-websocket-accept"), Some(ACCEPT));
}

#[tokio::test]
async fn the_subprotocol_is_echoed_when_it_is_ours() {
    let node = harness::node().start().await;
    let token = node.token("ann");
    for (offered, echoed) in [
        (Some("conclave.v1"), Some("conclave.v1")),
        (Some("graphql-ws, conclave.v1"), Some("conclave.v1")),
        (Some("conclave.v2"), None),
        (None, None),
    ] {
        let client = node
            .socket()
            .query_token(&token)
            .replace("Sec-WebSocket-Protocol", offered)
            .open()
            .await;
        assert_eq!(client.answer.header("sec-websocket-protocol"), echoed, "{offered:?}");
        assert_eq!(client.answer.header("sec-websocket-extensions"), None);
        client.welcomed().await.close(1000).await;
    }
}

#[tokio::test]
async fn a_refused_upgrade_leaves_the_connection_usable() {
    let node = harness::node().start().await;
    let mut stream: Box<dyn Stream> = Box::new(node.tls().connect().await);
    let token = node.token("ann");
    for (ask, status) in [
        (node.ask("GET", "/nowhere"), 404),
        (node.socket().replace("Upgrade", None), 426),
        (node.socket().query_token(&token).origin("https://evil.example"), 403),
        (node.ask("GET", "/livez"), 200),
    ] {
        stream.write_all(&ask.bytes()).await.unwrap();
        let (mut answer, mut body) = read_head(&mut stream).await;
        read_body(&mut answer, &mut stream, &mut body).await;
        assert_eq!(answer.status, status);
    }
    let (answer, stream, early) = node.socket().query_token(&token).origin(ORIGIN).send_on(stream).await;
    assert_eq!(answer.status, 101);
    Client::over(stream, early, answer).welcomed().await.close(1000).await;
}

#[tokio::test]
async fn a_header_of_20_mb_is_not_read_to_its_end() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    let before = node.metrics().await.sum("process_resident_memory_bytes", &[]);
    let long: [(&str, Vec<u8>); 3] = [
        ("one header", b"X-Long: ".to_vec()),
        ("one path", Vec::new()),
        ("many headers", Vec::new()),
    ];
    for (name, start) in long {
        let (mut read, mut write) = tokio::io::split(node.tls().connect().await);
        let line = if name == "one path" {
            "GET /".to_owned()
        } else {
            "GET /ws HTTP/1.1\r\nHost: localhost\r\n".to_owned()
        };
        let piece = if name == "many headers" {
            b"a: b\r\n".repeat(10_000)
        } else {
            vec![b'x'; 60_000]
        };
        let writing = async {
            let mut sent = 0;
            let _ = write.write_all(&[line.as_bytes(), &start].concat()).await;
            while sent < 20_000_000 && write.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        };
        let (sent, answer) = tokio::join!(writing, read_to_end(&mut read));
        assert!(sent < 20_000_000, "{name}: all of it was taken");
        let status = String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned);
        // A reset may overtake the answer; another answer may not.
        assert!(
            status.as_deref().is_none_or(|status| ["431", "414"].contains(&status)),
            "{name}: {status:?}"
        );
    }
    let grown = node.metrics().await.sum("process_resident_memory_bytes", &[]) - before;
    assert!(grown < 8.0 * 1024.0 * 1024.0, "{grown} bytes");
    assert_eq!(ann.pending().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_token_of_8_kib_fits_into_a_head() {
    let node = harness::node().start().await;
    let mut claims = harness::token::claims("ann");
    // Base64 makes four of three.
    claims["padding"] = json!("x".repeat(5_900));
    let token = node.token_with(&claims);
    assert!((7_900..=8_192).contains(&token.len()), "{}", token.len());
    for ask in [
        node.socket().query_token(&token),
        node.socket().bearer(&token),
        node.socket().cookie(&token).origin(ORIGIN),
    ] {
        ask.open().await.welcomed().await.close(1000).await;
    }
}

#[tokio::test]
async fn who_never_comes_to_the_point_is_cut() {
    let node = harness::node()
        .set("server.handshake_timeout", "1s")
        .set("server.header_timeout", "1s")
        .set("server.http_idle", "1s")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    let after_tcp: [&[u8]; 3] = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01"];
    let after_tls: [(&[&str], &[u8]); 8] = [
        (&[], b""),
        (&["h2"], b""),
        (&["h2"], b"P"),
        (&[], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"),
        (&["h2"], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (&["h2"], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        (&["http/1.1"], b"G"),
        (&["http/1.1"], b"GET /ws HTTP/1.1\r\nHost: localhost\r\n"),
    ];
    let silent = after_tcp.map(|bytes| async {
        let mut stream = node.tcp().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await;
    });
    let half = after_tls.map(|(alpn, bytes)| async {
        let mut stream = node.tls().alpn(alpn).connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await;
    });
    tokio::join!(join_all(silent), join_all(half), async {
        // One header byte now and then: the head has a deadline of its own.
        let mut stream = node.tls().connect().await;
        stream.write_all(b"GET /ws HTTP/1.1\r\nX-Slow: ").await.unwrap();
        let mut byte = [0];
        loop {
            tokio::select! {
                ended = stream.read(&mut byte) => match ended {
                    // Told before it is cut, or not.
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                },
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                    if stream.write_all(b"x").await.is_err() {
                        break;
                    }
                }
            }
        }
    });
    node.metric_reaches("conclave_handshakes_total", &[("result", "tls_timeout")], 7.0)
        .await;
    assert_eq!(ann.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn a_connection_that_is_used_is_not_idle() {
    let node = harness::node().set("server.http_idle", "1s").start().await;
    let mut stream = node.tls().connect().await;
    let started = std::time::Instant::now();
    // One request after the other, for longer than an idle connection may live.
    while started.elapsed() < std::time::Duration::from_millis(2_500) {
        stream
            .write_all(&node.ask("GET", "/livez").bytes())
            .await
            .expect("it is still open");
        let (mut answer, mut body) = read_head(&mut stream).await;
        read_body(&mut answer, &mut stream, &mut body).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(read_to_end(&mut stream).await, b"", "left alone it ends");
}

#[tokio::test]
async fn plain_http_on_the_port_is_told_to_use_https() {
    let node = harness::node().start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /ws HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = node.tcp().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
            "{answer}"
        );
    }
    node.metric_reaches("conclave_handshakes_total", &[("result", "not_tls")], 3.0)
        .await;
}

#[tokio::test]
async fn sockets_share_an_http2_connection_and_end_alone() {
    let node = harness::node().start().await;
    let http2 = Http2::connect(&node).await;
    let mut ann = http2.socket(&node.token("ann")).await.welcomed().await;
    let mut bob = http2.socket(&node.token("bob")).await.welcomed().await;
    let mut eve = node.client("eve").await;
    for client in [&mut ann, &mut bob, &mut eve] {
        client.join("lobby").await;
    }
    let large = "x".repeat(60_000);
    ann.send(json!({"type": "chat", "room": "lobby", "content": large}))
        .await;
    for client in [&mut ann, &mut bob, &mut eve] {
        assert_eq!(client.until("chat").await["content"], large);
    }
    // Turned away on its own stream.
    let mut nobody = http2.socket("rubbish").await;
    nobody.expect_close(1008, "token_malformed").await;
    nobody.gone().await;
    // Ended by its own fault.
    let mut mallory = http2.socket(&node.token("mallory")).await.welcomed().await;
    mallory
        .send_bytes(&frames::unmasked(frames::FIN | frames::TEXT, b"{}"))
        .await;
    mallory.expect_close(1002, "protocol").await;
    mallory.gone().await;
    // Reset by its client in the middle of a frame.
    let mut ghost = http2.socket(&node.token("ghost")).await.welcomed().await;
    ghost.join("lobby").await;
    ghost.send_bytes(&frames::head(frames::FIN | frames::TEXT, 100)).await;
    drop(ghost);
    assert_eq!(bob.find("ghost", |m| m["type"] == "left").await["user"]["id"], "ghost");
    // A proper goodbye.
    ann.close(1000).await;
    assert_eq!(bob.find("ann", |m| m["type"] == "left").await["user"]["id"], "ann");
    assert_eq!(http2.get("/livez").await.0, 200);
    bob.send(json!({"type": "chat", "room": "lobby", "content": "still here"}))
        .await;
    assert_eq!(eve.until("chat").await["content"], "still here");
}

#[tokio::test]
async fn http2_requests_that_are_no_socket_are_refused() {
    let node = harness::node().start().await;
    let http2 = Http2::connect(&node).await;
    let path = format!("/ws?token={}", node.token("ann"));
    let status = async |with: &dyn Fn(&mut http::Request<()>)| {
        http2
            .connect_with(&path, |request| with(request))
            .await
            .0
            .status()
            .as_u16()
    };
    assert_eq!(status(&|_| {}).await, 200);
    let origin = |origin: &'static str| {
        move |request: &mut http::Request<()>| {
            request
                .headers_mut()
                .append("origin", http::HeaderValue::from_static(origin));
        }
    };
    assert_eq!(status(&origin(ORIGIN)).await, 200);
    assert_eq!(
        status(&origin("https://localhost")).await,
        200,
        "same-origin by :authority"
    );
    assert_eq!(status(&origin("https://evil.example")).await, 403);
    assert_eq!(status(&origin("null")).await, 403);
    let version = |request: &mut http::Request<()>| {
        request
            .headers_mut()
            .insert("sec-websocket-version", http::HeaderValue::from_static("8"));
    };
    assert_eq!(status(&version).await, 426);
    let protocol = |request: &mut http::Request<()>| {
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("connect-udp"));
    };
    assert_eq!(status(&protocol).await, 501);
    assert_eq!(http2.get("/ws").await.0, 426);
    assert_eq!(http2.get("/nowhere").await.0, 404);
    assert_eq!(http2.connect_with("/nowhere", |_| {}).await.0.status(), 404);
}

#[tokio::test]
async fn http2_sockets_count_against_the_limits() {
    let node = harness::node().set("limits.connections", "3").start().await;
    let http2 = Http2::connect(&node).await;
    let mut ann = http2.socket(&node.token("ann")).await.welcomed().await;
    let bob = http2.socket(&node.token("bob")).await.welcomed().await;
    let mut late = http2.socket(&node.token("late")).await;
    assert_eq!(late.expect("closing").await["reason"], "overloaded");
    late.expect_close(1013, "overloaded").await;
    late.gone().await;
    assert_eq!(ann.pending().await, Vec::<Value>::new());
    bob.close(1000).await;
    assert_eq!(http2.get("/livez").await.0, 200);
}
