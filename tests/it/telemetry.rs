//! What operators see: a scrape that is right, by the real tools.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::http2::Http2;
use crate::harness::prometheus::Prometheus;
use crate::harness::token::{self, sign_with};
use crate::harness::{self, Client, Node, within};

/// Every kind of event that a scrape tells of.
async fn busy(node: &Node) -> Vec<Client> {
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.join("lobby").await;
    bob.join("lobby").await;
    ann.chat("lobby", "hi").await;
    bob.until("chat").await;
    bob.send_text("{").await;
    bob.until("error").await;
    node.client("carol").await.close(1000).await;
    let mut nobody = node.socket().open().await;
    nobody.expect_close(1008, "token_missing").await;
    assert!(node.socket().origin("https://evil.example").try_open().await.is_err());
    assert_eq!(node.ask("GET", "/nowhere").answer().await.status, 404);
    let mut stranger = node.tcp().await;
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    harness::node::read_to_end(&mut stranger).await;
    vec![ann, bob]
}

#[tokio::test]
async fn promtool_has_nothing_against_a_busy_node() {
    let node = harness::node().set("session.enabled", "true").start().await;
    let _clients = busy(&node).await;
    node.metric_reaches("conclave_handshakes_total", &[("result", "not_tls")], 1.0)
        .await;
    let text = node.admin("/metrics").await.body;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed; it comes with the package `prometheus`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test]
async fn a_real_prometheus_finds_the_main_series() {
    let node = harness::node().start().await;
    let mut clients = busy(&node).await;
    let prometheus = Prometheus::scraping(node.admin).await;
    prometheus.query("up", |up| up == 1.0).await;
    for (query, value) in [
        ("conclave_connections", 2.0),
        ("conclave_rooms", 1.0),
        ("conclave_members", 2.0),
        ("conclave_ready", 1.0),
        ("conclave_handshakes_total{result=\"not_tls\"}", 1.0),
        ("conclave_upgrades_total{result=\"foreign_origin\"}", 1.0),
        ("conclave_auth_failures_total{reason=\"token_missing\"}", 1.0),
        ("conclave_disconnects_total{code=\"1000\",initiator=\"client\"}", 1.0),
        (
            "conclave_disconnects_total{code=\"1008\",reason=\"token_missing\"}",
            1.0,
        ),
        (
            "conclave_build_info{version!=\"\",revision!=\"\",rustc!=\"\",backplane=\"memory\"}",
            1.0,
        ),
        (
            "http_server_request_duration_seconds_count{route=\"unmatched\",status=\"404\"}",
            1.0,
        ),
    ] {
        prometheus.query(query, |found| found == value).await;
    }
    let year = prometheus
        .query(
            "(conclave_tls_certificate_expiry_timestamp_seconds - time()) / 86400",
            |_| true,
        )
        .await;
    assert!(year > 300.0, "{year} days");
    clients[0].chat("lobby", "between two scrapes").await;
    for rate in [
        "rate(conclave_messages_total{direction=\"in\",kind=\"text\"}[30s])",
        "rate(conclave_messages_total{direction=\"out\",kind=\"text\"}[30s])",
        "rate(conclave_deliveries_total[30s])",
    ] {
        prometheus.query(rate, |rate| rate > 0.0).await;
    }
    // From histograms and from the process: there, whatever they are.
    for query in [
        "histogram_quantile(0.99, sum by (le) (conclave_tls_handshake_duration_seconds_bucket))",
        "histogram_quantile(0.99, sum by (le) (conclave_upgrade_duration_seconds_bucket))",
        "process_resident_memory_bytes / 1024",
        "process_open_fds / process_max_fds",
        "rate(process_cpu_seconds_total[30s]) >= 0",
        "tokio_workers >= 2",
    ] {
        prometheus.query(query, |value| value.is_finite()).await;
    }
}

#[tokio::test]
async fn a_conversation_is_counted_exactly() {
    let node = harness::node().start().await;
    let (mut ann, mut bob, mut carol) = (
        node.client("ann").await,
        node.client("bob").await,
        node.client("carol").await,
    );
    ann.join("lobby").await;
    bob.join("lobby").await;
    ann.until("join").await;
    carol.join("attic").await;
    for number in 0..5 {
        let ok = ann.chat("lobby", number).await;
        assert_eq!(ok["seq"], number + 1);
    }
    let keyed = json!({"type": "chat", "room": "lobby", "content": "once", "key": "k"});
    for _ in 0..3 {
        ann.ask(keyed.clone()).await;
    }
    for _ in 0..6 {
        bob.until("chat").await;
    }
    for bad in [
        "{",
        r#"{"type":"join"}"#,
        r#"{"type":"dance"}"#,
        r#"{"type":"join","room":"*"}"#,
    ] {
        bob.send_text(bad).await;
        bob.until("error").await;
    }
    bob.ask(json!({"type": "chat", "room": "attic", "content": 1})).await;
    assert_eq!(node.metrics().await.sum("conclave_rooms", &[]), 2.0);
    carol.ask(json!({"type": "leave", "room": "attic"})).await;
    carol
        .send_frame(harness::frames::FIN | harness::frames::PING, b"")
        .await;
    assert_eq!(carol.next().await, Some(harness::Frame::Pong(Vec::new())));
    // What ann has not read yet is counted as sent in any case.
    ann.pending().await;
    let metrics = node.metrics().await;
    let check = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(metrics.sum(name, labels), value, "{name} {labels:?}");
    };
    check("conclave_connections", &[], 3.0);
    check("conclave_connections_opened_total", &[], 3.0);
    check("conclave_connections_closed_total", &[], 0.0);
    check("conclave_users", &[], 2.0);
    check("conclave_members", &[], 2.0);
    check("conclave_joins_total", &[], 3.0);
    check("conclave_leaves_total", &[], 1.0);
    check("conclave_publishes_total", &[], 6.0);
    check("conclave_duplicate_publishes_total", &[], 2.0);
    check("conclave_deliveries_total", &[], 12.0);
    check("conclave_history_messages", &[], 6.0);
    check("conclave_handshakes_total", &[("result", "ok")], 3.0);
    check("conclave_handshakes_total", &[], 3.0);
    check("conclave_upgrades_total", &[("result", "admitted")], 3.0);
    check("conclave_upgrades_total", &[], 3.0);
    check("conclave_admitted_total", &[("place", "query")], 3.0);
    check("conclave_disconnects_total", &[], 0.0);
    check("conclave_dropped_messages_total", &[], 0.0);
    check("conclave_send_queue_bytes", &[], 0.0);
    // ann: join, 5 + 3 chats, ping. bob: join, 4 bad ones, chat. carol: join, leave.
    check(
        "conclave_messages_total",
        &[("direction", "in"), ("kind", "text")],
        18.0,
    );
    check("conclave_messages_total", &[("direction", "in"), ("kind", "ping")], 1.0);
    // 3 connected, 3 lists, 1 join, 12 chats, 8 ok, 5 errors, 1 ok of the leave, 1 pong.
    check(
        "conclave_messages_total",
        &[("direction", "out"), ("kind", "text")],
        34.0,
    );
    check(
        "conclave_messages_total",
        &[("direction", "out"), ("kind", "pong")],
        1.0,
    );
    for code in ["bad_json", "bad_message", "unknown_type", "bad_room", "not_joined"] {
        check("conclave_protocol_errors_total", &[("code", code)], 1.0);
    }
    check("conclave_protocol_errors_total", &[], 5.0);
    assert!(metrics.sum("conclave_message_bytes_total", &[("direction", "out")]) > 1_000.0);
    // And down to nought again.
    for client in [ann, bob, carol] {
        client.close(1000).await;
    }
    let labels = [("code", "1000"), ("reason", "none"), ("initiator", "client")];
    node.metric_reaches("conclave_disconnects_total", &labels, 3.0).await;
    let metrics = node.metrics().await;
    for gauge in [
        "conclave_connections",
        "conclave_members",
        "conclave_users",
        "conclave_send_queue_bytes",
    ] {
        assert_eq!(metrics.sum(gauge, &[]), 0.0, "{gauge}");
    }
    assert_eq!(
        metrics.sum("conclave_messages_total", &[("direction", "out"), ("kind", "close")]),
        3.0
    );
    assert_eq!(metrics.sum("conclave_connection_duration_seconds_count", &[]), 3.0);
}

#[tokio::test]
async fn refused_tokens_are_counted_by_reason_and_place() {
    let node = harness::node().start().await;
    let mut expired = token::claims("ann");
    expired["exp"] = json!(token::now() - 100);
    let mut early = token::claims("ann");
    early["nbf"] = json!(token::now() + 1000);
    let mut audience = token::claims("ann");
    audience["aud"] = json!("others");
    let header = json!({"alg": "HS256"});
    let asks = [
        ("token_missing", node.socket()),
        ("token_malformed", node.socket().query_token("rubbish")),
        (
            "token_signature",
            node.socket()
                .bearer(&sign_with(&header, &token::claims("ann"), &[7; 32])),
        ),
        ("token_expired", node.socket().bearer(&node.token_with(&expired))),
        ("token_not_yet_valid", node.socket().bearer(&node.token_with(&early))),
        ("token_audience", node.socket().bearer(&node.token_with(&audience))),
        ("cookie_origin", node.socket().cookie(&node.token("ann"))),
    ];
    for (reason, ask) in &asks {
        ask.open().await.expect_close(1008, reason).await;
    }
    // A refused renewal counts too, and closes nothing.
    let mut ann = node.client("ann").await;
    let refused = ann
        .ask(json!({"type": "auth", "token": node.token_with(&expired)}))
        .await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("forbidden"), &json!("token_expired"))
    );
    let metrics = node.metrics().await;
    for (reason, _) in &asks {
        let twice = if *reason == "token_expired" { 2.0 } else { 1.0 };
        assert_eq!(
            metrics.sum("conclave_auth_failures_total", &[("reason", reason)]),
            twice,
            "{reason}"
        );
        let labels = [("code", "1008"), ("reason", reason), ("initiator", "server")];
        node.metric_reaches("conclave_disconnects_total", &labels, 1.0).await;
    }
    assert_eq!(metrics.sum("conclave_upgrades_total", &[("result", "denied")]), 7.0);
    assert_eq!(
        metrics.sum("conclave_connections_opened_total", &[]),
        1.0,
        "only who was admitted"
    );
}

#[tokio::test]
async fn ends_are_counted_by_who_ended_them() {
    let node = harness::node().set("echo.enabled", "true").start().await;
    let check = async |code: &str, reason: &str, initiator: &str, count: f64| {
        let labels = [("code", code), ("reason", reason), ("initiator", initiator)];
        node.metric_reaches("conclave_disconnects_total", &labels, count).await;
    };
    for code in [1000, 1001, 3000, 4321] {
        node.client("ann").await.close(code).await;
    }
    check("1000", "none", "client", 1.0).await;
    check("1001", "none", "client", 1.0).await;
    check("other", "other", "client", 2.0).await;
    let mut without = node.client("ann").await;
    without
        .send_frame(harness::frames::FIN | harness::frames::CLOSE, b"")
        .await;
    assert_eq!(without.closed().await.0, 1005);
    check("1005", "none", "client", 1.0).await;
    let mut binary = node.client("ann").await;
    binary
        .send_frame(harness::frames::FIN | harness::frames::BINARY, b"x")
        .await;
    binary.expect_close(1003, "binary").await;
    check("1003", "binary", "server", 1.0).await;
    drop(node.client("ann").await);
    check("1006", "none", "client", 1.0).await;
    let http2 = Http2::connect(&node).await;
    http2
        .socket(&node.token("ann"))
        .await
        .welcomed()
        .await
        .close(1000)
        .await;
    check("1000", "none", "client", 2.0).await;
}

/// Whether reading or writing finds out first must not matter.
#[tokio::test]
async fn a_peer_that_breaks_off_while_it_is_spoken_to_is_no_missed_heartbeat() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for round in 0..30 {
        let ask = node.socket().query_token(&node.token(&format!("u{round}")));
        let stream = node.tls().connect().await;
        // A reset, not a goodbye: the next write fails.
        #[expect(deprecated, reason = "what it blocks for is nothing: 0 s is a reset")]
        stream.get_ref().0.set_linger(Some(Duration::ZERO)).unwrap();
        let (answer, stream, early) = ask.send_on(Box::new(stream)).await;
        let mut client = Client::over(stream, early, answer).welcomed().await;
        client.join("lobby").await;
        ann.until("join").await;
        let flood = harness::frames::text(r#"{"type":"chat","room":"lobby","content":"x"}"#).repeat(50);
        let ((), ()) = tokio::join!(ann.send_bytes(&flood), async { drop(client) });
        ann.until("left").await;
    }
    node.metric_reaches("conclave_disconnects_total", &[], 30.0).await;
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_disconnects_total", &[("reason", "heartbeat")]),
        0.0
    );
    let labels = [("code", "1006"), ("initiator", "client")];
    assert_eq!(metrics.sum("conclave_disconnects_total", &labels), 30.0);
}

#[tokio::test]
async fn a_slow_reader_and_a_fast_talker_are_counted() {
    let node = harness::node()
        .set("limits.message_bytes", "4KiB")
        .set("limits.outbox_bytes", "16KiB")
        .set("limits.outbox_frames", "100000")
        .set("limits.send_buffer", "8KiB")
        .set("limits.unsent_low_water", "4KiB")
        .set("limits.messages_per_second", "500")
        .start()
        .await;
    let ask = node.socket().query_token(&node.token("slow"));
    let mut slow = ask
        .clone()
        .tls(node.tls().receive_buffer(4096))
        .open()
        .await
        .welcomed()
        .await;
    slow.join("lobby").await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let padding = "x".repeat(4000);
    for _ in 0..400 {
        let answer = ann
            .ask(json!({"type": "chat", "room": "lobby", "content": padding}))
            .await;
        assert!(answer["type"] == "ok" || answer["code"] == "rate_limited", "{answer}");
        if node.metrics().await.sum("conclave_slow_consumers_total", &[]) > 0.0 {
            break;
        }
    }
    node.metric_reaches("conclave_slow_consumers_total", &[("limit", "bytes")], 1.0)
        .await;
    slow.drained().await;
    node.metric_reaches(
        "conclave_disconnects_total",
        &[("code", "1013"), ("reason", "slow_reader")],
        1.0,
    )
    .await;
    node.metric_reaches("conclave_dropped_messages_total", &[("reason", "slow_reader")], 1.0)
        .await;
    let flood = harness::frames::text(r#"{"type":"ping"}"#).repeat(600);
    ann.send_bytes(&flood).await;
    node.metric_reaches("conclave_rate_limited_total", &[("limit", "messages_per_second")], 1.0)
        .await;
}

#[tokio::test]
async fn the_admin_listener_answers_while_the_shards_are_flooded() {
    let node = harness::node().set("server.threads", "1").start().await;
    let mut talkers = Vec::new();
    for number in 0..8 {
        let mut talker = node.client(&format!("u{number}")).await;
        talker.join("lobby").await;
        talkers.push(talker);
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let flood = harness::frames::text(r#"{"type":"chat","room":"lobby","content":"flood"}"#).repeat(500);
    let floods = talkers.into_iter().map(|mut talker| {
        let (stop, flood) = (stop.clone(), flood.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // Nobody reads: whoever falls behind is closed, and that is the flood's own business.
                () = async { while talker.try_send_bytes(&flood).await.is_ok() {} } => {}
            }
        })
    });
    let floods: Vec<_> = floods.collect();
    for _ in 0..20 {
        let metrics = node.metrics().await;
        assert!(metrics.has("conclave_connections"));
        assert_eq!(node.admin("/livez").await.status, 200);
        assert_eq!(node.admin("/readyz").await.status, 200);
    }
    stop.cancel();
    for flood in floods {
        within("the flood to end", flood).await.unwrap();
    }
    // Silent callers of the admin listener take no place for long.
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(tokio::net::TcpStream::connect(node.admin).await.unwrap());
    }
    assert_eq!(node.admin("/livez").await.status, 200);
}
