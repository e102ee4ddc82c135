//! Who comes in, and what the others are told.

use crate::harness;

#[tokio::test]
async fn a_good_token_is_welcomed() {
    let node = harness::node().start().await;
    let client = node.client("ann").await;
    assert_eq!(client.welcome["user"]["id"], "ann");
    client.close(1000).await;
}

#[tokio::test]
async fn without_a_token_the_socket_is_closed_at_once() {
    let node = harness::node().start().await;
    let mut client = node.socket().open().await;
    client.expect_close(1008, "token_missing").await;
    client.gone().await;
}
