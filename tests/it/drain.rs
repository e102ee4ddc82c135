//! The verb that drains: what it predicts, what it does, and whom it asks.

use std::process::Output;

use serde_json::Value;

use crate::harness::{self, Builder, Node, redis, within};

const TOKEN: &str = "the-drain-tests-own-token-0123456789";

fn node() -> Builder {
    harness::node()
        .file("tokens", format!("ann {TOKEN}\n"))
        .set("admin.token_file", "tokens")
        .set("drain.time", "3s")
}

/// Runs `conclave drain` for a node, as its operator beside it does.
async fn drain(node: &Node, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"));
    command
        .arg("drain")
        .args(words)
        .args(["--url", &format!("http://{}", node.admin), "--token-file", "tokens"])
        .current_dir(node.folder());
    let output = tokio::task::spawn_blocking(move || command.output());
    within("the end of the verb", output).await.unwrap().expect("it runs")
}

async fn plan(node: &Node, words: &[&str]) -> Value {
    let output = drain(node, &[words, &["--json"]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[tokio::test]
async fn a_dry_run_predicts_what_the_drain_then_does() {
    let node = node().start().await;
    let mut clients = Vec::new();
    for number in 0..10 {
        clients.push(node.client(&format!("u{number}")).await);
    }
    let predicted = plan(&node, &["--dry-run"]).await;
    assert_eq!(predicted["clients"], 10);
    assert_eq!((&predicted["others"], &predicted["fits"]), (&0.into(), &true.into()));
    assert_eq!(
        node.metrics()
            .await
            .sum("conclave_drain_deadline_timestamp_seconds", &[]),
        0.0
    );
    assert_eq!(node.admin("/readyz").await.status, 200, "nothing has begun");

    let begun = plan(&node, &[]).await;
    let told = clients.into_iter().map(async |mut client| {
        let closing = client.until("closing").await;
        client.expect_close(1012, "restart").await;
        client.send_bytes(&harness::frames::close(1012, "")).await;
        closing["reconnect_after_ms"].as_u64().unwrap()
    });
    let slots = futures_util::future::join_all(told).await;
    assert_eq!(predicted, begun);
    // Alone: nobody comes back before this node can have a successor.
    let last = (predicted["last_return_seconds"].as_f64().unwrap() * 1_000.0) as u64;
    assert!(
        slots.iter().all(|slot| (1_000..=last).contains(slot)),
        "{slots:?} {predicted}"
    );
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let audit = node
        .logged("the audit", |line| line["target"] == "conclave::audit")
        .await;
    assert_eq!(
        (&audit["action"], &audit["who"], &audit["result"]),
        (&"drain".into(), &"ann".into(), &"begun".into())
    );
    node.logged("the plan", |line| {
        line["message"] == "drain begins" && line["clients"] == 10
    })
    .await;
}

#[tokio::test]
async fn progress_can_be_watched_and_waited_for() {
    let node = node().set("drain.time", "20s").start().await;
    let mut clients = Vec::new();
    for number in 0..40 {
        clients.push(node.client(&format!("u{number}")).await);
    }
    let waiting = drain(&node, &["--wait"]);
    let watching = async {
        let mut seen = Vec::new();
        node.logged("the drain", |line| line["phase"] == "Closing").await;
        // Two seconds for 40: the metrics answer to the very end.
        while node.process.seen().exit.is_none() {
            // The node may end while it is asked.
            let Some(metrics) = node.last_metrics().await else {
                break;
            };
            let left = metrics.sum("conclave_draining_clients", &[]);
            let deadline = metrics.sum("conclave_drain_deadline_timestamp_seconds", &[]);
            assert!(deadline > 1.7e9, "{deadline}");
            seen.push(left);
            if left == 0.0 {
                break;
            }
        }
        assert!(seen.iter().any(|left| *left > 0.0), "{seen:?}");
        assert!(seen.is_sorted_by(|before, after| before >= after), "{seen:?}");
    };
    let leaving = async {
        let closed = clients.into_iter().map(async |mut client| {
            client.until("closing").await;
            client.expect_close(1012, "restart").await;
            client.send_bytes(&harness::frames::close(1012, "")).await;
        });
        futures_util::future::join_all(closed).await;
    };
    let (output, (), ()) = tokio::join!(waiting, watching, leaving);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.ends_with("the node has ended\n"),
        "{said}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("40 clients"),
        "{output:?}"
    );
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let quarters = node.log().iter().filter(|line| line["message"] == "draining").count();
    assert!((2..=5).contains(&quarters), "{quarters} lines");
}

#[tokio::test]
async fn whoever_has_no_token_drains_nobody() {
    let node = node().start().await;
    std::fs::write(node.folder().join("tokens"), "somebody-elses-token-0123456789-abcdef\n").unwrap();
    let output = drain(&node, &[]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("401") && !said.contains("somebody-elses"), "{said}");
    assert_eq!(node.admin("/readyz").await.status, 200);
    let closed = harness::node().file("tokens", TOKEN).start().await;
    let output = drain(&closed, &[]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("admin.token_file"), "{said}");
}

#[tokio::test]
async fn in_a_cluster_the_others_take_them_at_once() {
    let redis = redis().start().await;
    let on = || {
        node()
            .set("backplane.kind", "redis")
            .set("backplane.url", &redis.url())
            .set("drain.time", "10s")
    };
    let (going, staying) = (on().start().await, on().start().await);
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(going.client(&format!("u{number}")).await);
    }
    // The other one is known, and ready, within a lease.
    within("the other node", async {
        while plan(&going, &["--dry-run"]).await["others"] != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    let predicted = plan(&going, &["--dry-run"]).await;
    assert_eq!((&predicted["moving"], &predicted["fits"]), (&20.into(), &true.into()));
    going.terminate("TERM");
    for client in &mut clients {
        let closing = client.until("closing").await;
        let slot = closing["reconnect_after_ms"].as_u64().unwrap();
        assert!((100..1_500).contains(&slot), "{closing}");
        client.expect_close(1012, "restart").await;
        client.send_bytes(&harness::frames::close(1012, "")).await;
    }
    assert_eq!(going.wait_exit().await.code(), Some(0));
    drop(staying);
}
