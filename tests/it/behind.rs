//! Behind a proxy that speaks TLS and HTTP: on loopback or a unix socket without TLS, and whose request it is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::harness::http2::Http2;
use crate::harness::node::{Builder, read_to_end};
use crate::harness::request::{Stream, read_body};
use crate::harness::{self, Answer, Ask, Client, Frame, Node, within};

const SITE: &str = "https://chat.example.com";

fn without_tls() -> Builder {
    harness::node().set("tls.mode", "off")
}

/// On a socket in a folder of its own.
fn on_socket() -> (Builder, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conclave.sock");
    let listen = format!("unix:{}", path.display());
    (without_tls().set("server.listen", &listen), path, folder)
}

async fn tcp(node: &Node) -> Box<dyn Stream> {
    Box::new(node.tcp().await)
}

async fn unix(path: &Path) -> Box<dyn Stream> {
    Box::new(within("a unix socket", UnixStream::connect(path)).await.unwrap())
}

async fn open(ask: Ask, stream: Box<dyn Stream>) -> Client {
    let (answer, stream, early) = ask.send_on(stream).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    Client::over(stream, early, answer)
}

async fn answer(ask: &Ask, stream: Box<dyn Stream>) -> Answer {
    let (mut answer, mut stream, mut body) = ask.send_on(stream).await;
    read_body(&mut answer, &mut stream, &mut body).await;
    answer
}

fn good(node: &Node, sub: &str) -> Ask {
    node.socket().query_token(&node.token(sub))
}

/// As proxies write it.
fn v1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 198.51.100.1 56324 443\r\n").into_bytes()
}

async fn refused(node: &Node, limit: &str, times: f64) {
    node.metric_reaches("conclave_refused_total", &[("limit", limit)], times)
        .await;
}

#[tokio::test]
async fn everything_works_without_tls_on_loopback() {
    for runtime in ["per-core", "shared"] {
        let node = without_tls()
            .runtime(runtime)
            .set("echo.enabled", "true")
            .set("drain.time", "5s")
            .start()
            .await;
        assert_eq!(answer(&node.ask("GET", "/livez"), tcp(&node).await).await.status, 200);
        assert_eq!(
            answer(&node.ask("GET", "/conclave.js"), tcp(&node).await).await.status,
            200
        );
        let mut ann = open(good(&node, "ann"), tcp(&node).await).await.welcomed().await;
        let http2 = Http2::over(node.tcp().await).await;
        let mut bob = http2.socket(&node.token("bob")).await.welcomed().await;
        ann.join("lobby").await;
        bob.join("lobby").await;
        let content = "x".repeat(60_000);
        ann.chat("lobby", content.clone()).await;
        assert_eq!(bob.until("chat").await["content"], content);
        let echo = node.ask("GET", "/echo").upgrade().query_token(&node.token("cara"));
        let mut echo = open(echo, tcp(&node).await).await;
        let long = "y".repeat(3 << 20);
        echo.send_text(&long).await;
        assert_eq!(echo.next().await, Some(Frame::Text(long)));
        let mut nobody = open(node.socket(), tcp(&node).await).await;
        nobody.expect_close(1008, "token_missing").await;
        node.terminate("TERM");
        assert_eq!(ann.until("closing").await["reason"], "restart");
        ann.expect_close(1012, "restart").await;
        assert_eq!(node.wait_exit().await.code(), Some(0));
    }
}

/// The proxy's host is ours: it is the one with the certificate.
#[tokio::test]
async fn a_site_signs_in_and_connects_with_its_cookie() {
    let node = without_tls()
        .set("session.enabled", "true")
        .set("origin.allow", "[]")
        .start()
        .await;
    let host = |ask: Ask| ask.replace("Host", Some("chat.example.com"));
    let sign_in = |origin: &str| {
        host(node.ask("POST", "/session"))
            .origin(origin)
            .header("Content-Type", "application/json")
            .body(r#"{"name":"Ann"}"#)
    };
    let signed_in = answer(&sign_in(SITE), tcp(&node).await).await;
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    let cookie = signed_in.header("set-cookie").expect("a cookie");
    assert!(cookie.contains("; Secure; SameSite=Lax"), "{cookie}");
    let token = cookie.split(['=', ';']).nth(1).expect("a value").to_owned();
    let ask = host(node.socket()).origin(SITE).cookie(&token);
    let mut guest = open(ask, tcp(&node).await).await.welcomed().await;
    guest.join("lobby").await;
    for foreign in [
        "http://chat.example.com",
        "https://evil.example",
        "https://chat.example.com:444",
        "null",
    ] {
        assert_eq!(
            answer(&sign_in(foreign), tcp(&node).await).await.status,
            403,
            "{foreign}"
        );
        let ask = host(node.socket()).origin(foreign).cookie(&token);
        assert_eq!(ask.send_on(tcp(&node).await).await.0.status, 403, "{foreign}");
    }
}

#[tokio::test]
async fn what_is_no_http_ends() {
    let node = without_tls().set("server.handshake_timeout", "1s").start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"",
    ] {
        let mut stream = node.tcp().await;
        stream.write_all(bytes).await.unwrap();
        let said = read_to_end(&mut stream).await;
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 4"),
            "{}",
            said.escape_ascii()
        );
    }
    assert_eq!(answer(&node.ask("GET", "/livez"), tcp(&node).await).await.status, 200);
}

#[tokio::test]
async fn it_is_said_loudly_and_refused_elsewhere() {
    let node = without_tls().start().await;
    node.logged("a warning", |line| {
        line["level"] == "WARN" && line.to_string().contains("NO TLS")
    })
    .await;
    for (key, value, words) in [
        ("server.listen", "0.0.0.0:0", "could read every token"),
        ("server.listen", "\"[::]:0\"", "could read every token"),
    ] {
        let (exit, seen) = without_tls().set(key, value).fail().await;
        let said = format!("{:?}{:?}", seen.stdout, seen.stderr);
        assert_eq!(exit.code(), Some(64), "{said}");
        assert!(said.contains(words) && said.contains("127.0.0.1:PORT"), "{said}");
    }
    let (exit, _) = on_socket().0.set("tls.mode", "on").fail().await;
    assert_eq!(exit.code(), Some(64));
}

#[tokio::test]
async fn a_unix_socket_carries_everything_and_outlives_a_kill() {
    let (builder, path, _folder) = on_socket();
    let node = builder
        .set("echo.enabled", "true")
        .set("server.listen_mode", "\"0600\"")
        .set("server.threads", "3")
        .start()
        .await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(answer(&node.ask("GET", "/livez"), unix(&path).await).await.status, 200);
    let mut clients = Vec::new();
    for number in 0..12 {
        let mut client = open(good(&node, &format!("u{number}")), unix(&path).await)
            .await
            .welcomed()
            .await;
        client.join("lobby").await;
        clients.push(client);
    }
    clients[0].chat("lobby", "hi").await;
    for client in &mut clients[1..] {
        assert_eq!(client.until("chat").await["content"], "hi");
    }
    let echo = node.ask("GET", "/echo").upgrade().query_token(&node.token("cara"));
    let mut echo = open(echo, unix(&path).await).await;
    let long = "y".repeat(3 << 20);
    echo.send_text(&long).await;
    assert_eq!(echo.next().await, Some(Frame::Text(long)));
    let listen = format!("unix:{}", path.display());
    let (exit, seen) = without_tls().set("server.listen", &listen).fail().await;
    assert!(!exit.success());
    assert!(format!("{seen:?}").contains("in use by another process"), "{seen:?}");
    node.terminate("KILL");
    node.wait_exit().await;
    for client in &mut clients {
        client.drained().await;
    }
    let node = without_tls()
        .set("drain.time", "5s")
        .set("server.listen", &listen)
        .start()
        .await;
    let mut client = open(good(&node, "ann"), unix(&path).await).await.welcomed().await;
    node.terminate("TERM");
    assert_eq!(client.until("closing").await["reason"], "restart");
    client.expect_close(1012, "restart").await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_proxy_on_the_unix_socket_says_whose_connection_it_is() {
    let (builder, path, _folder) = on_socket();
    let node = builder
        .set("server.proxy_from", "[\"unix\"]")
        .set("limits.connections_per_address", "1")
        .start()
        .await;
    let through = async |source: &str| {
        let mut stream = unix(&path).await;
        stream.write_all(&v1(source)).await.unwrap();
        stream
    };
    let _ann = open(good(&node, "ann"), through("192.0.2.1").await)
        .await
        .welcomed()
        .await;
    let _bob = open(good(&node, "bob"), through("192.0.2.2").await)
        .await
        .welcomed()
        .await;
    assert!(read_to_end(&mut through("192.0.2.1").await).await.is_empty());
    refused(&node, "connections_per_address", 1.0).await;
    let mut bare = unix(&path).await;
    bare.write_all(&node.ask("GET", "/livez").bytes()).await.unwrap();
    assert!(read_to_end(&mut bare).await.is_empty(), "a header is required");
}

/// One at a time from each address; over it a socket is told to come back later.
async fn counts_by_header(node: &Node, connect: impl AsyncFn() -> Box<dyn Stream>) {
    let said = |sub: &str, name: &str, value: &str| good(node, sub).header(name, value);
    let _ann = open(
        said("ann", "X-Forwarded-For", "203.0.113.9, 192.0.2.1"),
        connect().await,
    )
    .await
    .welcomed()
    .await;
    let _bob = open(
        said("bob", "Forwarded", "for=\"192.0.2.2:4711\";proto=https"),
        connect().await,
    )
    .await
    .welcomed()
    .await;
    let _cara = open(said("cara", "Forwarded", "for=\"[2001:db8::1]\""), connect().await)
        .await
        .welcomed()
        .await;
    for (name, value) in [
        ("Forwarded", "for=192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.2"),
        ("X-Forwarded-For", "2001:db8::ffff"),
    ] {
        let mut again = open(said("dan", name, value), connect().await).await;
        let closing = again.expect("closing").await;
        assert_eq!(closing["reason"], "overloaded", "{value}");
        again.expect_close(1013, "overloaded").await;
    }
    refused(node, "connections_per_address", 3.0).await;
}

#[tokio::test]
async fn trusted_proxies_say_whose_request_it_is() {
    let limited = |builder: Builder| builder.set("limits.connections_per_address", "1");
    let node = limited(without_tls().set("server.forwarded_from", "[\"127.0.0.0/8\"]"))
        .start()
        .await;
    counts_by_header(&node, async || tcp(&node).await).await;
    let (builder, path, _folder) = on_socket();
    let node = limited(builder.set("server.forwarded_from", "[\"unix\"]"))
        .start()
        .await;
    counts_by_header(&node, async || unix(&path).await).await;
    // With TLS of our own in addition.
    let node = limited(harness::node().set("server.forwarded_from", "[\"127.0.0.0/8\"]"))
        .start()
        .await;
    counts_by_header(&node, async || Box::new(node.tls().connect().await) as Box<dyn Stream>).await;
}

#[tokio::test]
async fn others_are_not_believed() {
    let node = without_tls()
        .set("server.forwarded_from", "[\"192.0.2.0/24\", \"unix\"]")
        .set("auth.refusals_per_second", "1")
        .set("auth.refusals_burst", "2")
        .start()
        .await;
    let mut statuses = Vec::new();
    for number in 0..3 {
        let ask = node.socket().header("X-Forwarded-For", &format!("203.0.113.{number}"));
        statuses.push(ask.send_on(tcp(&node).await).await.0.status);
    }
    assert_eq!(statuses, [101, 101, 429], "all of them are this machine's");
}

/// Refused tokens and messages count for who is named, however many come over one connection of the proxy.
#[tokio::test]
async fn rates_of_an_address_are_those_of_who_is_named() {
    let node = without_tls()
        .set("server.forwarded_from", "[\"127.0.0.0/8\"]")
        .set("auth.refusals_per_second", "1")
        .set("auth.refusals_burst", "2")
        .set("limits.address_messages_per_second", "2")
        .start()
        .await;
    let by = |ask: Ask, address: &str| ask.header("X-Forwarded-For", address);
    for address in ["192.0.2.1", "192.0.2.2"] {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let ask = by(node.socket(), address);
            statuses.push(ask.send_on(tcp(&node).await).await.0.status);
        }
        assert_eq!(statuses, [101, 101, 429], "{address}");
    }
    let mut one = open(by(good(&node, "ann"), "192.0.2.3"), tcp(&node).await)
        .await
        .welcomed()
        .await;
    let mut other = open(by(good(&node, "bob"), "192.0.2.3"), tcp(&node).await)
        .await
        .welcomed()
        .await;
    let mut third = open(by(good(&node, "cara"), "192.0.2.4"), tcp(&node).await)
        .await
        .welcomed()
        .await;
    for client in [&mut one, &mut other] {
        client.send(json!({"type": "ping"})).await;
        client.expect("pong").await;
    }
    one.send(json!({"type": "ping"})).await;
    one.expect_error("rate_limited").await;
    third.send(json!({"type": "ping"})).await;
    third.expect("pong").await;
}

/// A balancer passes TCP on from a proxy that names its clients.
#[tokio::test]
async fn the_header_of_the_connection_says_who_the_proxy_is() {
    let node = without_tls()
        .set("server.proxy_from", "[\"127.0.0.0/8\"]")
        .set("server.forwarded_from", "[\"10.0.0.0/8\"]")
        .set("limits.connections_per_address", "1")
        .start()
        .await;
    let through = async |source: &str| {
        let mut stream = tcp(&node).await;
        stream.write_all(&v1(source)).await.unwrap();
        stream
    };
    let ask = |sub: &str, client: &str| good(&node, sub).header("X-Forwarded-For", client);
    let mut inside = Vec::new();
    for (sub, proxy, client) in [
        ("ann", "10.0.0.1", "192.0.2.1"),
        ("bob", "10.0.0.1", "192.0.2.2"),
        // No proxy of ours: its header says nothing.
        ("cara", "192.0.2.3", "192.0.2.1"),
    ] {
        inside.push(open(ask(sub, client), through(proxy).await).await.welcomed().await);
    }
    let mut again = open(ask("dan", "192.0.2.3"), through("10.0.0.2").await).await;
    again.expect("closing").await;
    again.expect_close(1013, "overloaded").await;
    assert!(read_to_end(&mut through("192.0.2.3").await).await.is_empty());
    for client in &mut inside {
        assert_eq!(client.pending().await, Vec::<Value>::new());
    }
}
