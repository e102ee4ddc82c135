//! Behind a balancer that passes TCP on and says whose connection it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::node::read_to_end;
use crate::harness::{self, Builder, Client, Node, within};

const ANN: &str = "192.0.2.1:56324";
const BOB: &str = "192.0.2.2:56324";
const CARA: &str = "[2001:db8::1]:56324";
/// Of one subscriber with [`CARA`].
const CARAS_PHONE: &str = "[2001:db8::ffff:1]:9";

/// A node that trusts this machine as a proxy.
fn behind_us() -> Builder {
    harness::node().set("server.proxy_from", "[\"192.0.2.0/24\", \"127.0.0.1/32\"]")
}

fn v1(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let (family, destination) = match source {
        SocketAddr::V4(_) => ("TCP4", "198.51.100.1"),
        SocketAddr::V6(_) => ("TCP6", "2001:db8:ffff::1"),
    };
    format!("PROXY {family} {} {destination} {} 443\r\n", source.ip(), source.port()).into_bytes()
}

/// With an extension, as balancers add them.
fn v2(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let (family, mut rest) = match source {
        SocketAddr::V4(v4) => (0x11, [v4.ip().octets(), [198, 51, 100, 1]].concat()),
        SocketAddr::V6(v6) => (0x21, [v6.ip().octets(), [0xfd; 16]].concat()),
    };
    rest.extend([source.port().to_be_bytes(), 443_u16.to_be_bytes()].concat());
    rest.extend(b"\x02\x00\x0bexample.com");
    binary(0x21, family, &rest)
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// A connection that begins with `header`, in one segment with the ClientHello.
async fn try_tls(node: &Node, header: &[u8]) -> io::Result<TlsStream<DuplexStream>> {
    let mut tcp = node.tcp().await;
    let (theirs, mut ours) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::clone(&node.tls().config()));
    let connecting = connector.connect(ServerName::try_from("localhost").unwrap(), theirs);
    let mut first = vec![0; 16 * 1024];
    let header = header.to_vec();
    let carry = async move {
        let read = ours.read(&mut first).await?;
        tcp.write_all(&[&header, &first[..read]].concat()).await?;
        tokio::io::copy_bidirectional(&mut ours, &mut tcp).await
    };
    tokio::spawn(carry);
    within("a TLS handshake", connecting).await
}

async fn try_client(node: &Node, sub: &str, header: &[u8]) -> io::Result<Client> {
    let stream = try_tls(node, header).await?;
    let ask = node.socket().query_token(&node.token(sub));
    let (answer, stream, early) = ask.send_on(Box::new(stream)).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    Ok(Client::over(stream, early, answer).welcomed().await)
}

async fn client(node: &Node, sub: &str, header: &[u8]) -> Client {
    try_client(node, sub, header).await.expect("a connection")
}

async fn handshakes(node: &Node, result: &str, count: f64) {
    node.metric_reaches("conclave_handshakes_total", &[("result", result)], count)
        .await;
}

#[tokio::test]
async fn both_versions_carry_a_room() {
    let node = behind_us().start().await;
    let headers = [v1(ANN), v2(BOB), v1(CARA), v2(CARA)];
    for header in headers {
        let mut client = client(&node, "ann", &header).await;
        client.join("lobby").await;
        client
            .send(json!({"type": "chat", "room": "lobby", "content": "hi"}))
            .await;
        assert_eq!(client.until("chat").await["content"], "hi");
        client.close(1000).await;
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_handshakes_total", &[("result", "ok")]), 4.0);
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let node = behind_us().start().await;
    for header in [v1(ANN), v2(CARA)] {
        let mut tcp = node.tcp().await;
        for byte in &header {
            tcp.write_all(&[*byte]).await.unwrap();
        }
        let connector = TlsConnector::from(node.tls().config());
        let connecting = connector.connect(ServerName::try_from("localhost").unwrap(), tcp);
        let mut stream = within("a TLS handshake", connecting).await.unwrap();
        let request = node.ask("GET", "/livez").bytes();
        stream.write_all(&request).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn the_limit_of_connections_counts_who_is_announced() {
    let node = behind_us().set("limits.connections_per_address", "1").start().await;
    let mut inside = Vec::new();
    for (sub, header) in [("ann", v1(ANN)), ("bob", v2(BOB)), ("cara", v2(CARA))] {
        inside.push(client(&node, sub, &header).await);
    }
    for header in [v1(ANN), v2(BOB), v1(CARAS_PHONE)] {
        assert!(try_tls(&node, &header).await.is_err(), "{}", header.escape_ascii());
    }
    handshakes(&node, "per_address_limit", 3.0).await;
    node.metric_reaches("conclave_refused_total", &[("limit", "connections_per_address")], 3.0)
        .await;
    for client in &mut inside {
        assert_eq!(client.pending().await, Vec::<Value>::new(), "the others go on");
    }
    // Ann's place is free a moment after her goodbye, and nobody else's is.
    inside.remove(0).close(1000).await;
    within("a free place", async {
        while try_client(&node, "ann", &v2(ANN)).await.is_err() {}
    })
    .await;
    assert!(try_tls(&node, &v2(BOB)).await.is_err());
}

#[tokio::test]
async fn silent_connections_of_a_proxy_take_no_clients_place() {
    let node = behind_us().set("limits.connections_per_address", "1").start().await;
    // More than one address may have, before any of them has said whose it is.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(node.tcp().await);
    }
    let ann = client(&node, "ann", &v1(ANN)).await;
    ann.close(1000).await;
}

#[tokio::test]
async fn refusals_are_counted_for_who_is_announced() {
    let node = behind_us()
        .set("auth.refusals_per_second", "1")
        .set("auth.refusals_burst", "1")
        .start()
        .await;
    let status = async |header: &[u8]| {
        let stream = try_tls(&node, header).await.expect("a connection");
        let (answer, ..) = node.socket().query_token("none").send_on(Box::new(stream)).await;
        answer.status
    };
    // A slow machine may have earned another refusal in between: a few more then.
    within("one refusal too many", async { while status(&v1(ANN)).await != 429 {} }).await;
    assert_ne!(status(&v1(BOB)).await, 429, "another address is free");
}

#[tokio::test]
async fn connections_of_the_proxys_own_count_for_the_proxy() {
    let node = behind_us().set("limits.connections_per_address", "1").start().await;
    let unknown = b"PROXY UNKNOWN\r\n";
    let local = binary(0x20, 0x00, b"");
    let first = client(&node, "probe", unknown).await;
    assert!(try_tls(&node, &local).await.is_err(), "both are the proxy");
    handshakes(&node, "per_address_limit", 1.0).await;
    client(&node, "ann", &v1(ANN)).await.close(1000).await;
    first.close(1000).await;
}

#[tokio::test]
async fn a_trusted_peer_without_a_good_header_is_refused() {
    let node = behind_us().start().await;
    assert!(node.tls().try_connect().await.is_err(), "TLS at once");
    let bad: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
        &[b'P'; 2],
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c",
        // It announces more than is read.
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x01",
    ];
    for bytes in bad {
        let mut tcp = node.tcp().await;
        tcp.write_all(bytes).await.unwrap();
        assert_eq!(read_to_end(&mut tcp).await, b"", "closed without a word");
    }
    handshakes(&node, "bad_proxy_header", 8.0).await;
    // Only one header is read: a second one is the client's, and no TLS.
    let mut tcp = node.tcp().await;
    tcp.write_all(&[v1(ANN), v1(BOB)].concat()).await.unwrap();
    read_to_end(&mut tcp).await;
    handshakes(&node, "not_tls", 1.0).await;
}

#[tokio::test]
async fn half_a_header_ends_with_its_sender_or_with_the_deadline() {
    let node = behind_us().set("server.handshake_timeout", "300ms").start().await;
    for header in [v1(ANN), v2(ANN)] {
        let mut tcp = node.tcp().await;
        tcp.write_all(&header[..header.len() - 1]).await.unwrap();
        assert_eq!(read_to_end(&mut tcp).await, b"");
    }
    handshakes(&node, "tls_timeout", 2.0).await;
    let node = behind_us().start().await;
    // As a balancer does that only looks whether the port is open.
    let leaving: TcpStream = node.tcp().await;
    drop(leaving);
    let mut leaving = node.tcp().await;
    leaving.write_all(b"PROXY ").await.unwrap();
    drop(leaving);
    handshakes(&node, "client_gone", 2.0).await;
    let bad = [("result", "bad_proxy_header")];
    assert_eq!(node.metrics().await.sum("conclave_handshakes_total", &bad), 0.0);
}

#[tokio::test]
async fn nobody_else_may_speak_for_others() {
    for trusted in ["[]", "[\"192.0.2.0/24\", \"::1/128\"]"] {
        let node = harness::node().set("server.proxy_from", trusted).start().await;
        for header in [v1(ANN), v2(ANN)] {
            assert!(try_tls(&node, &header).await.is_err(), "{trusted}");
        }
        handshakes(&node, "not_tls", 2.0).await;
        node.client("ann").await.close(1000).await;
    }
}

#[tokio::test]
async fn an_ipv4_proxy_is_known_on_an_ipv6_socket() {
    let node = behind_us().set("server.listen", "\"[::]:0\"").start().await;
    let mut tcp = TcpStream::connect(("127.0.0.1", node.listen.port())).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    read_to_end(&mut tcp).await;
    handshakes(&node, "bad_proxy_header", 1.0).await;
}

#[tokio::test]
async fn a_network_that_is_none_keeps_the_node_from_starting() {
    let (exit, seen) = harness::node().set("server.proxy_from", "[\"10.0.0.1\"]").fail().await;
    assert_eq!(exit.code(), Some(64), "{seen:?}");
    assert!(seen.stderr.contains("did you mean \"10.0.0.1/32\"?"), "{seen:?}");
}
