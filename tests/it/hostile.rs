//! Bytes that no proper client sends.

use crate::harness::{self, frames};

#[tokio::test]
async fn a_frame_without_mask_is_a_protocol_error() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    client.send_bytes(&frames::unmasked(frames::FIN | frames::TEXT, b"{}")).await;
    client.expect_close(1002, "protocol").await;
    client.gone().await;
}
