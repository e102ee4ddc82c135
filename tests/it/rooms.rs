//! What may be said in rooms, by whom, and how each request is answered.

use serde_json::{Value, json};

use crate::harness::{self, Client, Frame, Node, frames, token};

const RUNTIMES: [&str; 2] = ["per-core", "shared"];

async fn refused(client: &mut Client, message: Value) -> String {
    let error = client.ask(message).await;
    assert_eq!(error["type"], "error", "{error}");
    error["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn a_ref_of_every_kind_comes_back_as_it_was_written() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    let longest = format!("\"{}\"", "r".repeat(64));
    let refs = [
        "0",
        "-7",
        "123456789012345678901234567890",
        r#""""#,
        r#""a\u0000\"\\\/b""#,
        r#""\ud83d\udc4b""#,
        "\"é👋\"",
        &longest,
    ];
    let messages = [
        (r#"{"type":"ping""#, "pong"),
        (r#"{"type":"join","room":"lobby""#, "list"),
        (r#"{"type":"chat","room":"lobby","content":1"#, "ok"),
        (r#"{"type":"list","room":"lobby""#, "list"),
        (r#"{"type":"history","room":"lobby""#, "history"),
        (r#"{"type":"leave","room":"lobby""#, "ok"),
        (r#"{"type":"leave","room":"lobby""#, "error"),
        (r#"{"type":"shout""#, "error"),
        (r#"{"type":"join","room":"*""#, "error"),
    ];
    for reference in refs {
        for (message, answer) in messages {
            client.send_text(&format!("{message},\"ref\":{reference}}}")).await;
            let text = loop {
                match client.next().await {
                    Some(Frame::Text(text)) if text.contains(r#""type":"chat""#) && answer == "ok" => {}
                    Some(Frame::Text(text)) => break text,
                    other => panic!("{other:?}"),
                }
            };
            assert!(text.contains(&format!("\"ref\":{reference}")), "{reference}: {text}");
            assert!(
                text.starts_with(&format!(r#"{{"type":"{answer}""#)),
                "{message}: {text}"
            );
            // The chat of an `ok` may come behind it.
            client.pending().await;
        }
    }
}

#[tokio::test]
async fn every_error_has_its_code_and_closes_nothing() {
    let node = harness::node()
        .set("limits.message_bytes", "1KiB")
        .set("limits.rooms_per_connection", "2")
        .set("limits.room_members", "2")
        .set("limits.rooms", "3")
        .start()
        .await;
    let mut others = Vec::new();
    for (name, room) in [("bob", "full"), ("cem", "full"), ("dot", "a")] {
        let mut other = node.client(name).await;
        other.join(room).await;
        others.push(other);
    }
    let mut claims = token::claims("ann");
    claims["rooms"] = json!({"secret": ["list"], "*": ["*"]});
    let mut ann = node.client_with(&claims).await;
    ann.send_text("{").await;
    ann.expect_error("bad_json").await;
    let long = "x".repeat(2_000);
    let cases = [
        (json!({"type": "join"}), "bad_message"),
        (json!({"type": "shout"}), "unknown_type"),
        (json!({"type": "join", "room": " a"}), "bad_room"),
        (json!({"type": "join", "room": "secret"}), "forbidden"),
        (json!({"type": "auth", "token": "no"}), "forbidden"),
        (json!({"type": "leave", "room": "a"}), "not_joined"),
        (json!({"type": "join", "room": "full"}), "room_full"),
        (json!({"type": "ping", "padding": long}), "too_large"),
    ];
    for (message, code) in cases {
        assert_eq!(refused(&mut ann, message.clone()).await, code, "{message}");
    }
    ann.join("b").await;
    // Three rooms there are: `full`, `a`, `b`.
    assert_eq!(
        refused(&mut ann, json!({"type": "join", "room": "c"})).await,
        "unavailable"
    );
    ann.join("a").await;
    let over = json!({"type": "join", "room": "full"});
    assert_eq!(refused(&mut ann, over).await, "too_many_rooms");
    // Who is in already is neither one too many nor refused a place.
    ann.join("a").await;
    others[0].join("full").await;
    assert_eq!(ann.chat("a", "still here").await["type"], "ok");
    for code in [
        "bad_json",
        "bad_message",
        "unknown_type",
        "bad_room",
        "forbidden",
        "not_joined",
        "room_full",
        "unavailable",
        "too_many_rooms",
        "too_large",
    ] {
        let labels = [("code", code)];
        node.metric_reaches("conclave_protocol_errors_total", &labels, 1.0)
            .await;
    }
    assert_eq!(node.metrics().await.sum("conclave_disconnects_total", &[]), 0.0);
}

#[tokio::test]
async fn each_verb_needs_its_own_grant() {
    let node = harness::node().start().await;
    let mut owner = node.client("owner").await;
    let verbs = ["join", "chat", "list", "history"];
    for missing in verbs {
        owner.join(missing).await;
        let mut claims = token::claims("ann");
        let rest: Vec<_> = verbs.into_iter().filter(|verb| *verb != missing).collect();
        claims["rooms"] = json!({missing: rest});
        let mut ann = node.client_with(&claims).await;
        let join = ann.ask(json!({"type": "join", "room": missing})).await;
        if missing == "join" {
            assert_eq!(join["code"], "forbidden");
            continue;
        }
        // Whoever may join is told who is here; only asking again is another verb.
        assert_eq!(join["type"], "list", "{join}");
        for verb in &verbs[1..] {
            let answer = ann.ask(json!({"type": verb, "room": missing, "content": 1})).await;
            let denied = answer["code"] == "forbidden";
            assert_eq!(denied, *verb == missing, "{verb} without {missing}: {answer}");
        }
        assert_eq!(ann.ask(json!({"type": "leave", "room": missing})).await["type"], "ok");
    }
}

#[tokio::test]
async fn a_new_token_takes_rooms_away_from_its_own_connection_alone() {
    let node = harness::node().start().await;
    let mut bob = node.client("bob").await;
    bob.join("a").await;
    let (mut one, mut two) = (node.client("ann").await, node.client("ann").await);
    for tab in [&mut one, &mut two] {
        tab.join("a").await;
        tab.join("b").await;
    }
    assert_eq!(bob.expect("join").await["user"]["id"], "ann");
    let mut less = token::claims("ann");
    less["rooms"] = json!({"b": ["*"]});
    let answer = one.ask(json!({"type": "auth", "token": node.token_with(&less)})).await;
    assert_eq!((&answer["type"], &answer["expires"]), (&json!("ok"), &less["exp"]));
    // `removed` may come on either side of the `ok`: `list` of the room says which rooms are left.
    assert_eq!(
        refused(&mut one, json!({"type": "chat", "room": "a", "content": 1})).await,
        "not_joined"
    );
    assert_eq!(
        refused(&mut one, json!({"type": "join", "room": "a"})).await,
        "forbidden"
    );
    assert_eq!(one.chat("b", 1).await["seq"], 1);
    assert_eq!(two.chat("a", 1).await["seq"], 1, "the other tab has its old token");
    assert_eq!(bob.pending().await.len(), 1, "one chat, and nobody left");
    let answer = two
        .ask(json!({"type": "auth", "token": node.token_with(&less), "ref": 1}))
        .await;
    assert_eq!(answer["type"], "ok");
    assert_eq!(
        bob.expect("left").await["user"]["id"],
        "ann",
        "now the last tab has gone"
    );
    // With `removed` in the way this time.
    let mut third = node.client("ann").await;
    third.join("a").await;
    third
        .send(json!({"type": "auth", "token": node.token_with(&less)}))
        .await;
    let removed = third.expect("removed").await;
    assert_eq!((&removed["room"], &removed["reason"]), (&json!("a"), &json!("grant")));
    assert_eq!(third.pending().await, Vec::<Value>::new(), "without a ref no ok");
}

#[tokio::test]
async fn one_order_for_all_and_each_senders_own_inside_it() {
    for runtime in RUNTIMES {
        let node = harness::node()
            .runtime(runtime)
            .set("server.threads", "3")
            .start()
            .await;
        let mut members = Vec::new();
        // Two tabs of one user among them.
        for name in ["ann", "ann", "bob", "cem", "dot"] {
            let mut client = node.client(name).await;
            client.join("lobby").await;
            members.push(client);
        }
        let said = 200;
        for (index, member) in members.iter_mut().enumerate() {
            let burst: Vec<u8> = (0..said)
                .flat_map(|number| {
                    let chat = json!({"type": "chat", "room": "lobby", "content": [index, number]});
                    frames::text(&chat.to_string())
                })
                .collect();
            member.send_bytes(&burst).await;
        }
        let mut orders = Vec::new();
        for member in &mut members {
            let mut order = Vec::new();
            for seq in 1..=5 * said {
                let chat = member.until("chat").await;
                assert_eq!(chat["seq"], seq, "{runtime}");
                order.push((
                    chat["content"][0].as_u64().unwrap(),
                    chat["content"][1].as_u64().unwrap(),
                ));
            }
            orders.push(order);
        }
        assert!(orders.iter().all(|order| *order == orders[0]), "one order");
        for sender in 0..5 {
            let own: Vec<u64> = orders[0]
                .iter()
                .filter(|said| said.0 == sender)
                .map(|said| said.1)
                .collect();
            assert!(
                own.iter().copied().eq(0..said),
                "{runtime}: in the order of their sender"
            );
        }
    }
}

#[tokio::test]
async fn a_key_is_good_for_its_user_over_reconnects_and_until_its_window_ends() {
    let node = harness::node().set("room.key_window", "2s").start().await;
    let keyed = |content: u64| json!({"type": "chat", "room": "lobby", "content": content, "key": "k"});
    let mut witness = node.client("witness").await;
    witness.join("lobby").await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let first = ann.ask(keyed(0)).await["seq"].clone();
    // Cut in the middle: it does not know whether it was heard.
    drop(ann);
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let (mut retries, mut tries) = (0, 1);
    let later = harness::within("the end of the window", async {
        loop {
            let seq = ann.ask(keyed(tries)).await["seq"].clone();
            tries += 1;
            if seq != first {
                return seq;
            }
            retries += 1;
        }
    })
    .await;
    assert_eq!(later, 2, "nothing was kept in between");
    assert_eq!(witness.until("chat").await["content"], 0);
    assert_eq!(witness.until("chat").await["content"], tries - 1);
    let mut bob = node.client("bob").await;
    bob.join("lobby").await;
    assert_eq!(bob.ask(keyed(9)).await["seq"], 3, "another user's key");
    node.metric_reaches("conclave_duplicate_publishes_total", &[], f64::from(retries))
        .await;
    assert!(witness.until("chat").await["content"] == 9);
    for key in [json!(""), json!("k".repeat(65)), json!(1), json!("é".repeat(33))] {
        let chat = json!({"type": "chat", "room": "lobby", "content": 1, "key": key});
        assert_eq!(refused(&mut bob, chat).await, "bad_message", "{key}");
    }
}

#[tokio::test]
async fn any_json_is_content_and_arrives_as_it_was_written() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for content in [
        "null",
        "false",
        "-0",
        "1e400",
        "0.10",
        "12345678901234567890123",
        r#""""#,
        r#"{"a":1,"a":2}"#,
        "[ 1 ,\t2 ]",
        r#""\u2028\u0000""#,
    ] {
        ann.send_text(&format!(r#"{{"content":{content},"room":"lobby","type":"chat"}}"#))
            .await;
        match ann.next().await {
            Some(Frame::Text(text)) => assert!(text.contains(&format!(r#""content":{content},"#)), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_the_rate_refuses_was_not_done() {
    let node: Node = harness::node()
        .set("limits.messages_per_second", "1")
        .set("limits.messages_burst", "2")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let chat = |number: u64| {
        let chat = json!({"type": "chat", "room": "lobby", "content": number, "ref": number});
        frames::text(&chat.to_string())
    };
    ann.send_bytes(&(1..=6).flat_map(chat).collect::<Vec<u8>>()).await;
    let (mut done, mut refused, mut said) = (Vec::new(), Vec::new(), Vec::new());
    while done.len() + refused.len() < 6 || said.len() < done.len() {
        let message = ann.message().await;
        match message["type"].as_str() {
            Some("ok") => done.push(message["ref"].as_u64()),
            Some("chat") => said.push(message["content"].as_u64()),
            Some("error") => {
                assert_eq!(message["code"], "rate_limited");
                assert!(message["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0));
                refused.push(message["ref"].as_u64());
            }
            _ => panic!("{message}"),
        }
    }
    assert!(!refused.is_empty());
    assert_eq!(said, done, "said is what was acknowledged");
}
