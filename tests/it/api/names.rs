//! Names in paths: whatever a client may call a room, the application can name too.

use serde_json::{Value, json};

use super::{ask, delete, get, node, post};
use crate::harness::within;

/// Every byte but letters and digits escaped.
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

#[tokio::test]
async fn every_name_that_a_client_may_use_can_be_said_in_a_path() {
    let node = node().start().await;
    let mut ann = node.client("ann").await;
    for name in [
        "team/42",
        "a/../b",
        "..",
        ".",
        "%",
        "%2F",
        "}x",
        "{x}",
        "a?b#c",
        "two words",
        "Zürich",
        "部屋",
        "🚀",
        "a+b",
        "a\\b",
        "/",
        "//",
        "users",
        "\"",
        "a&b=c;d",
    ] {
        ann.join(name).await;
        let path = format!("/rooms/{}", escaped(name));
        let said = post(&node, &format!("{path}/chat"), json!({"content": name})).await;
        assert_eq!(said["room"], name);
        let chat = ann.until("chat").await;
        assert_eq!((&chat["room"], &chat["content"]), (&json!(name), &json!(name)));
        let users = get(&node, &format!("{path}/users")).await;
        assert_eq!((&users["room"], &users["count"]), (&json!(name), &json!(1)));
        let history = get(&node, &format!("{path}/history")).await;
        assert_eq!(
            (&history["room"], history["messages"].as_array().unwrap().len()),
            (&json!(name), 1)
        );
        delete(&node, &format!("{path}/users/ann")).await;
        assert_eq!(ann.until("removed").await["room"], name);
    }
}

#[tokio::test]
async fn every_user_id_can_be_said_in_a_path() {
    let node = node().start().await;
    for id in [
        "a/b",
        "..",
        "%2F",
        "auth0|5f7c",
        "ann@example.com",
        "Zoë",
        "a b",
        "guest:1",
        "}",
        "a+b",
    ] {
        let mut client = node.client(id).await;
        post(
            &node,
            &format!("/users/{}/message", escaped(id)),
            json!({"content": id}),
        )
        .await;
        assert_eq!(client.expect("message").await["content"], id);
        let kicked = post(&node, &format!("/users/{}/kick", escaped(id)), json!({})).await;
        assert_eq!(kicked["user"], id);
        assert_eq!(within("the close", client.closed()).await.0, 1008);
    }
}

#[tokio::test]
async fn what_is_no_name_at_all_is_refused() {
    let node = node().start().await;
    let body = json!({"content": 1});
    for (path, expected) in [
        ("/rooms/%FF/chat", 400),
        ("/rooms/%00/chat", 404),
        ("/rooms//chat", 404),
        ("/rooms/a/b/chat", 404),
        ("/rooms/a%0Ab/chat", 404),
    ] {
        let (status, answer): (u16, Value) = ask(&node, "POST", path, Some(&body)).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
}
