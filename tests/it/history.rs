//! What is kept of a room: by number, size and age; and what is said when it is not.

use serde_json::{Value, json};

use crate::harness::{self, Builder, Client, Node};

async fn page(client: &mut Client, mut request: Value) -> Value {
    request["type"] = json!("history");
    request["room"] = json!("lobby");
    client.ask(request).await
}

fn seqs(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().unwrap_or_else(|| panic!("{page}"));
    messages
        .iter()
        .map(|chat| chat["seq"].as_u64().expect("a seq"))
        .collect()
}

async fn told(builder: Builder, count: u64, bytes: usize) -> (Node, Client, Value) {
    let node = builder.start().await;
    let mut ann = node.client("ann").await;
    let epoch = ann.join("lobby").await["epoch"].clone();
    let padding = "x".repeat(bytes);
    for seq in 1..=count {
        assert_eq!(ann.chat("lobby", padding.as_str()).await["seq"], seq);
    }
    (node, ann, epoch)
}

async fn recovered(node: &Node, epoch: &Value, seq: u64) -> bool {
    let mut back = node.client("back").await;
    let since = json!({"epoch": epoch, "seq": seq});
    let list = back.ask(json!({"type": "join", "room": "lobby", "since": since})).await;
    let recovered = list["recovered"].as_bool().unwrap_or_else(|| panic!("{list}"));
    back.close(1000).await;
    recovered
}

#[tokio::test]
async fn pages_end_early_rather_than_being_huge() {
    let (_node, mut ann, _) = told(harness::node(), 12, 30_000).await;
    // Four of 30,000 bytes fit 128 KiB.
    let (mut found, mut after) = (Vec::new(), 0);
    for _ in 0..3 {
        let page = page(&mut ann, json!({"after": after})).await;
        assert_eq!(page["more"], after < 8, "{}", page["first"]);
        found.extend(seqs(&page));
        after = *found.last().expect("messages");
    }
    assert!(found.into_iter().eq(1..=12));
    let (mut found, mut before) = (Vec::new(), 13);
    for _ in 0..3 {
        let page = page(&mut ann, json!({"before": before})).await;
        assert_eq!(page["more"], before > 5);
        let mut these = seqs(&page);
        these.append(&mut found);
        found = these;
        before = found[0];
    }
    assert!(found.into_iter().eq(1..=12));
}

#[tokio::test]
async fn one_message_larger_than_a_page_is_a_page() {
    let builder = harness::node()
        .set("limits.message_bytes", "1MiB")
        .set("limits.outbox_bytes", "4MiB")
        .set("history.bytes", "4MiB");
    let (_node, mut ann, _) = told(builder, 3, 300_000).await;
    let first = page(&mut ann, json!({"after": 0})).await;
    assert_eq!((seqs(&first), &first["more"]), (vec![1], &json!(true)));
    let last = page(&mut ann, json!({})).await;
    assert_eq!((seqs(&last), &last["more"]), (vec![3], &json!(true)));
    let rest = page(&mut ann, json!({"after": 2, "limit": 1})).await;
    assert_eq!((seqs(&rest), &rest["more"]), (vec![3], &json!(false)));
}

#[tokio::test]
async fn any_number_is_answered_and_no_other_thing_is_a_number() {
    let (_node, mut ann, _) = told(harness::node(), 5, 1).await;
    let all = vec![1, 2, 3, 4, 5];
    for (request, due, more) in [
        (json!({}), all.clone(), false),
        (json!({"before": u64::MAX}), all.clone(), false),
        (json!({"before": 6}), all.clone(), false),
        (json!({"before": 1}), vec![], false),
        (json!({"before": 0}), vec![], false),
        (json!({"after": 0}), all, false),
        (json!({"after": 5}), vec![], false),
        (json!({"after": u64::MAX}), vec![], false),
        (json!({"after": u64::MAX - 1, "limit": 1000}), vec![], false),
        (json!({"before": 3, "limit": 1}), vec![2], true),
        (json!({"after": 3, "limit": 1}), vec![4], true),
    ] {
        let page = page(&mut ann, request.clone()).await;
        assert_eq!((seqs(&page), &page["more"]), (due, &json!(more)), "{request}");
        assert_eq!(page["first"], 1);
    }
    for wrong in [
        r#""limit":0"#,
        r#""limit":1001"#,
        r#""limit":18446744073709551615"#,
        r#""limit":-1"#,
        r#""limit":"1""#,
        r#""limit":1.0"#,
        r#""before":18446744073709551616"#,
        r#""before":-1"#,
        r#""after":1e1"#,
        r#""after":"1""#,
        r#""after":1,"before":3"#,
        r#""after":1,"after":1"#,
    ] {
        ann.send_text(&format!(r#"{{"type":"history","room":"lobby","ref":1,{wrong}}}"#))
            .await;
        let error = ann.expect_error("bad_message").await;
        assert_eq!(error["ref"], 1, "{wrong}");
    }
}

#[tokio::test]
async fn the_oldest_go_when_there_are_too_many_or_too_large() {
    for (key, value, bytes) in [("messages", "10", 1), ("bytes", "10KiB", 900)] {
        let builder = harness::node()
            .set("limits.message_bytes", "1KiB")
            .set(&format!("history.{key}"), value);
        let (node, mut ann, epoch) = told(builder, 30, bytes).await;
        let page = page(&mut ann, json!({"after": 0})).await;
        let first = page["first"].as_u64().expect("a seq");
        // About 1,010 bytes are kept of each of the larger ones.
        assert_eq!(first, 21, "{key}");
        assert!(seqs(&page).into_iter().eq(first..=30), "{key}");
        assert_eq!(page["more"], false);
        assert!(recovered(&node, &epoch, first - 1).await, "{key}: nothing is missing");
        assert!(!recovered(&node, &epoch, first - 2).await, "{key}: one is missing");
    }
}

#[tokio::test]
async fn where_nothing_is_kept_only_who_missed_nothing_recovers() {
    let (node, mut ann, epoch) = told(harness::node().set("history.messages", "0"), 3, 1).await;
    let page = page(&mut ann, json!({"after": 0})).await;
    assert_eq!(
        (seqs(&page), &page["first"], &page["more"]),
        (vec![], &json!(4), &json!(false))
    );
    assert!(recovered(&node, &epoch, 3).await);
    assert!(!recovered(&node, &epoch, 2).await);
    assert_eq!(ann.chat("lobby", 4).await["seq"], 4);
}

#[tokio::test]
async fn the_old_is_forgotten_and_the_numbers_go_on() {
    let (node, mut ann, epoch) = told(harness::node().set("history.age", "1s"), 3, 1).await;
    let forgotten = harness::within("the age to pass", async {
        loop {
            let page = page(&mut ann, json!({"after": 0})).await;
            if seqs(&page).is_empty() {
                return page;
            }
        }
    })
    .await;
    assert_eq!(
        (&forgotten["first"], &forgotten["more"]),
        (&json!(4), &json!(false)),
        "{forgotten}"
    );
    assert_eq!(forgotten["epoch"], epoch);
    assert!(!recovered(&node, &epoch, 2).await);
    assert!(recovered(&node, &epoch, 3).await, "who heard all of it missed nothing");
    assert_eq!(ann.chat("lobby", 4).await["seq"], 4);
}

#[tokio::test]
async fn a_room_that_nobody_can_come_back_for_ends_and_so_does_its_epoch() {
    let builder = harness::node().set("history.age", "1s").set("room.key_window", "1s");
    let (node, mut ann, epoch) = told(builder, 3, 1).await;
    let keyed = json!({"type": "chat", "room": "lobby", "content": 1, "key": "k"});
    assert_eq!(ann.ask(keyed).await["seq"], 4);
    ann.close(1000).await;
    harness::within("the room to be forgotten", async {
        while node.metrics().await.sum("conclave_rooms", &[]) > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    // Both were good places; in the new epoch the first would be one that never was, the second one to come.
    for seq in [0, 4] {
        assert!(!recovered(&node, &epoch, seq).await, "{seq}");
    }
    let mut bob = node.client("bob").await;
    let list = bob.join("lobby").await;
    assert_ne!(list["epoch"], epoch);
    assert_eq!(list["seq"], 0);
    let ok = bob.chat("lobby", 1).await;
    assert_eq!((&ok["seq"], &ok["epoch"]), (&json!(1), &list["epoch"]));
}
