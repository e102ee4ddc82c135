//! A certificate from an ACME authority: Pebble, which Let's Encrypt wrote for this and not we.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::harness::ports::Port;
use crate::harness::tls::Tls;
use crate::harness::{self, Builder, Node, Pebble, within};

const DOMAIN: &str = "rooms.example.test";
const ORDERS: &str = "conclave_acme_orders_total";
const HANDSHAKES: &str = "conclave_handshakes_total";
const EXPIRY: &str = "conclave_tls_certificate_expiry_timestamp_seconds";

fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    folder
}

fn node(pebble: &Pebble, listen: &Port, folder: &Path) -> Builder {
    harness::node()
        .set("server.listen", &format!("127.0.0.1:{}", listen.number))
        .set("tls.certificate", "")
        .set("tls.key", "")
        .set("acme.domains", &format!("[\"{DOMAIN}\"]"))
        .set("acme.contact", "[\"mailto:ops@example.test\"]")
        .set("acme.directory", &pebble.directory())
        .set("acme.ca_file", "pebble.crt")
        .set("acme.cache_dir", &folder.display().to_string())
        .set("acme.retry", "1s")
        .file("pebble.crt", pebble.own_pem())
}

/// What a handshake shows, whoever has signed it.
async fn leaf(node: &Node) -> CertificateDer<'static> {
    let stream = Tls::new(node.listen, &node.certificate)
        .named(DOMAIN)
        .trusting()
        .connect()
        .await;
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone()
}

async fn orders(node: &Node, result: &str) -> f64 {
    node.metrics().await.sum(ORDERS, &[("result", result)])
}

/// Clients trust the authority's root from now on, and a handshake with it comes about.
async fn trust(node: &mut Node, pebble: &Pebble) {
    node.certificate = pebble.root().await;
    node.name = DOMAIN.to_owned();
    let tls = node.tls();
    within("a certificate of the authority", async {
        while tls.try_connect().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_gets_a_certificate_renews_it_and_no_socket_notices() {
    let (listen, folder) = (Port::free(), folder());
    let mut pebble = Pebble::new(listen.number, 24);
    // The node makes the folder.
    let mut node = node(&pebble, &listen, &folder.path().join("acme")).start().await;
    // The authority is away: alive, not ready, and handshakes end cleanly.
    node.metric_reaches(ORDERS, &[("result", "failed")], 1.0).await;
    let ready = node.admin("/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "no certificate yet\n"));
    assert_eq!(node.admin("/livez").await.status, 200);
    assert!(node.tls().trusting().try_connect().await.is_err());
    node.metric_reaches(HANDSHAKES, &[("result", "no_certificate")], 1.0)
        .await;
    assert_eq!(node.metrics().await.sum(EXPIRY, &[]), 0.0);

    pebble.start().await;
    node.metric_reaches(ORDERS, &[("result", "ok")], 1.0).await;
    trust(&mut node, &pebble).await;
    assert_eq!(node.admin("/readyz").await.status, 200);
    node.metric_reaches(HANDSHAKES, &[("result", "acme_challenge")], 1.0)
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let (first, expiry) = (leaf(&node).await, node.metrics().await.sum(EXPIRY, &[]));

    // Two thirds of its 24 s later the authority is away again: the old one stays.
    pebble.stop();
    let failed = orders(&node, "failed").await;
    node.metric_reaches(ORDERS, &[("result", "failed")], failed + 1.0).await;
    assert_eq!(leaf(&node).await, first);
    assert_eq!(node.metrics().await.sum(EXPIRY, &[]), expiry);
    node.logged("why", |line| {
        let said = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN" && said.contains("no certificate from the authority") && line["not_after_s"].is_i64()
    })
    .await;
    ann.chat("lobby", "still here").await;

    // And back: the new one is served, the socket is the same.
    pebble.start().await;
    node.metric_reaches(ORDERS, &[("result", "ok")], 2.0).await;
    trust(&mut node, &pebble).await;
    assert_ne!(leaf(&node).await, first);
    assert!(node.metrics().await.sum(EXPIRY, &[]) > expiry);
    ann.chat("lobby", "and still").await;
    assert_eq!(node.metrics().await.sum("conclave_disconnects_total", &[]), 0.0);
    node.terminate("TERM");
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let said = node.process.seen().stdout.join("\n");
    assert!(!said.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn what_was_ordered_lasts_over_a_restart_without_the_authority() {
    let (listen, folder) = (Port::free(), folder());
    let mut pebble = Pebble::new(listen.number, 3600);
    pebble.start().await;
    let mut first = node(&pebble, &listen, folder.path()).start().await;
    trust(&mut first, &pebble).await;
    let (root, served) = (first.certificate.clone(), leaf(&first).await);
    first.terminate("TERM");
    first.wait_exit().await;
    pebble.stop();
    for entry in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
        assert!(
            !entry.file_name().to_string_lossy().starts_with("challenge"),
            "{entry:?}"
        );
    }
    let mut again = node(&pebble, &listen, folder.path()).start().await;
    assert_eq!(again.admin("/readyz").await.status, 200);
    (again.certificate, again.name) = (root, DOMAIN.to_owned());
    again.client("ann").await.close(1000).await;
    assert_eq!(leaf(&again).await, served);
    assert_eq!(orders(&again, "failed").await + orders(&again, "ok").await, 0.0);
}

/// Behind a balancer the authority may ask any node, not the one that has ordered.
#[tokio::test]
async fn nodes_that_share_the_folder_answer_for_each_other() {
    let (ordering, answering, folder) = (Port::free(), Port::free(), folder());
    let mut pebble = Pebble::new(answering.number, 3600);
    let mut one = node(&pebble, &ordering, folder.path()).start().await;
    let mut other = node(&pebble, &answering, folder.path())
        .set("acme.retry", "1h")
        .start()
        .await;
    // It does not try again soon; the first one does.
    other.metric_reaches(ORDERS, &[("result", "failed")], 1.0).await;
    pebble.start().await;
    trust(&mut one, &pebble).await;
    trust(&mut other, &pebble).await;
    assert_eq!(leaf(&one).await, leaf(&other).await);
    assert_eq!((orders(&one, "ok").await, orders(&other, "ok").await), (1.0, 0.0));
    other
        .metric_reaches(HANDSHAKES, &[("result", "acme_challenge")], 1.0)
        .await;
    assert_eq!(
        one.metrics().await.sum(HANDSHAKES, &[("result", "acme_challenge")]),
        0.0
    );
    assert_eq!(other.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_challenge_that_nobody_waits_for_is_refused_and_others_are_served() {
    let (listen, folder) = (Port::free(), folder());
    let mut pebble = Pebble::new(listen.number, 3600);
    pebble.start().await;
    let mut node = node(&pebble, &listen, folder.path()).start().await;
    trust(&mut node, &pebble).await;
    let before = node.metrics().await.sum(HANDSHAKES, &[("result", "tls_error")]);
    for name in [DOMAIN, "other.example.test"] {
        let tls = Tls::new(node.listen, &node.certificate).named(name).trusting();
        assert!(tls.alpn(&["acme-tls/1"]).try_connect().await.is_err(), "{name}");
    }
    node.metric_reaches(HANDSHAKES, &[("result", "tls_error")], before + 2.0)
        .await;
    // Beside others it is no challenge.
    let stream = node.tls().alpn(&["acme-tls/1", "http/1.1"]).connect().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    node.client("ann").await.close(1000).await;
}
