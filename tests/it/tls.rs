//! The TLS under it all.

use crate::harness;

#[tokio::test]
async fn tls_1_2_and_1_3_carry_a_room() {
    let node = harness::node().start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ask = node.socket().query_token(&node.token("ann")).tls(node.tls_with(&[version]));
        let mut client = ask.open().await.welcomed().await;
        client.join("lobby").await;
        client.send(serde_json::json!({"type": "chat", "room": "lobby", "content": "hi"})).await;
        assert_eq!(client.until("chat").await["content"], "hi");
        client.close(1000).await;
    }
}
