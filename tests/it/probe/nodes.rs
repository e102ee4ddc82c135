//! A probe of two nodes: what is said on one comes out on the other, and nobody else hears of it.

use redis::Value as Stored;
use serde_json::json;

use super::{Probed, claims, probe_node, url};
use crate::harness::sentinel::words;
use crate::harness::{self, Builder, NatsServer, Node, Redis, within};

fn on_redis(redis: &Redis) -> Builder {
    harness::node()
        .set("backplane.kind", "redis")
        .set("backplane.url", &redis.url())
}

/// Both nodes have the certificate of the first.
async fn pair(builder: impl Fn() -> Builder) -> (Node, Node) {
    let here = builder().start().await;
    let there = builder().certificate(here.certificate.clone()).start().await;
    (here, there)
}

async fn over(here: &Node, there: &Node, more: &[&str]) -> Probed {
    let via = url(there.listen);
    let words = [&["--via", via.as_str(), "--room", "lobby", "--json"], more].concat();
    probe_node(here, &claims(), &words).await
}

fn heard_there(probed: &Probed) {
    probed.passes();
    let stages = probed.json()["stages"].to_string();
    assert!(
        stages.contains("\"via\"") && stages.contains("\"via_delivery\""),
        "{stages}"
    );
}

#[tokio::test]
async fn a_message_goes_from_node_to_node_over_redis_unnoticed() {
    let redis = Redis::start().await;
    let (here, there) = pair(|| on_redis(&redis)).await;
    let (mut ann, mut bob) = (here.client("ann").await, there.client("bob").await);
    ann.join("lobby").await;
    bob.join("lobby").await;
    ann.until("join").await;
    // Her own may reach the other node after his list.
    within("both to be known there", async {
        while bob.ask(json!({"type": "list", "room": "lobby"})).await["count"] != 2 {}
    })
    .await;
    heard_there(&over(&here, &there, &[]).await);
    heard_there(&over(&there, &here, &[]).await);
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.pending().await, Vec::<serde_json::Value>::new());
        let list = member.ask(json!({"type": "list", "room": "lobby"})).await;
        assert_eq!((&list["count"], &list["seq"]), (&json!(2), &json!(0)), "{list}");
    }
    for node in [&here, &there] {
        let metrics = node.metrics().await;
        assert_eq!(metrics.sum("conclave_probe_sessions_total", &[]), 2.0);
        for name in [
            "conclave_publishes_total",
            "conclave_deliveries_total",
            "conclave_history_messages",
        ] {
            assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
        }
        assert_eq!(
            metrics.sum("conclave_presence_changes_total", &[("change", "leave")]),
            0.0
        );
        assert_eq!(
            (metrics.sum("conclave_rooms", &[]), metrics.sum("conclave_users", &[])),
            (1.0, 2.0)
        );
    }
    // Beside the room in its partition, nobody in it, and gone soon.
    let keys = words(&redis.cli(&["KEYS", "*lobby*"]).await);
    let shadows: Vec<_> = keys.iter().filter(|key| key.contains('\u{2}')).collect();
    assert!(shadows.iter().any(|key| key.contains("{503}l:\u{2}lobby")), "{keys:?}");
    assert!(!shadows.iter().any(|key| key.contains("}u:")), "{keys:?}");
    for key in shadows {
        let Stored::Int(left_ms) = redis.cli(&["PTTL", key]).await else {
            panic!("{key}")
        };
        let most_ms = if key.contains("}l:") { 60_000 } else { 3_600_000 };
        assert!((1..=most_ms).contains(&left_ms), "{key}: {left_ms}");
    }
}

#[tokio::test]
async fn a_message_goes_from_node_to_node_over_nats() {
    let nats = NatsServer::start().await;
    let on_nats = || {
        harness::node()
            .set("backplane.kind", "nats")
            .set("backplane.url", &nats.url())
    };
    let (here, there) = pair(on_nats).await;
    let mut ann = there.client("ann").await;
    ann.join("lobby").await;
    heard_there(&over(&here, &there, &[]).await);
    assert_eq!(ann.pending().await, Vec::<serde_json::Value>::new());
    let metrics = there.metrics().await;
    assert_eq!(metrics.sum("conclave_deliveries_total", &[]), 0.0);
}

#[tokio::test]
async fn nodes_that_share_nothing_are_found_out() {
    let redis = Redis::start().await;
    let here = on_redis(&redis).start().await;
    let apart = on_redis(&redis)
        .set("backplane.prefix", "apart")
        .certificate(here.certificate.clone());
    let there = apart.start().await;
    let probed = over(&here, &there, &["--timeout", "5s"]).await;
    assert_eq!(
        (probed.code, probed.stage().as_str()),
        (1, "via_delivery"),
        "{}",
        probed.out
    );
    assert!(probed.out.contains("backplane.url and prefix"), "{}", probed.out);
    // The other node away altogether, and Redis away.
    there.terminate("TERM");
    there.wait_exit().await;
    let probed = over(&here, &there, &[]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (3, "via"), "{}", probed.out);
    drop(redis);
    let away = |line: &serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("cannot be reached"))
    };
    here.logged("that the backplane is away", away).await;
    let probed = probe_node(&here, &claims(), &["--json", "--timeout", "10s"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (1, "join"), "{}", probed.out);
    assert!(
        probed.out.contains("unavailable") && probed.out.contains("conclave_backplane_up"),
        "{}",
        probed.out
    );
}
