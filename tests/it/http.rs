//! Requests that are no WebSocket.

use crate::harness;

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let node = harness::node().start().await;
    assert_eq!(node.socket().open().await.answer.header("sec-websocket-accept"), Some(harness::request::ACCEPT));
    assert_eq!(node.ask("GET", "/nowhere").answer().await.status, 404);
}
