//! What is too much, and what it is answered with.

use serde_json::json;

use crate::harness;

#[tokio::test]
async fn a_message_over_the_rate_is_refused_with_a_time() {
    let node = harness::node().set("limits.messages_per_second", "1").start().await;
    let mut client = node.client("ann").await;
    client.send(json!({"type": "ping"})).await;
    client.send(json!({"type": "ping", "ref": "second"})).await;
    client.expect("pong").await;
    let error = client.expect_error("rate_limited").await;
    assert_eq!(error["ref"], "second");
    assert!(error["retry_after_ms"].as_u64().is_some_and(|ms| (1..=1000).contains(&ms)), "{error}");
    node.metric_reaches("conclave_rate_limited_total", &[("limit", "messages_per_second")], 1.0).await;
}
