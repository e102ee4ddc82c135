//! Each operation on a node with the memory backplane.

use serde_json::{Value, json};

use super::{ask, ask_as, delete, get, node, post, refused};
use crate::harness::{Client, Frame, Node, token, within};

async fn heard(client: &mut Client, count: usize) -> Vec<(u64, Value)> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let chat = client.until("chat").await;
        heard.push((chat["seq"].as_u64().unwrap(), chat["content"].clone()));
    }
    heard
}

async fn probe(node: &Node, sub: &str) -> Client {
    let mut claims = token::claims(sub);
    claims["probe"] = json!(true);
    node.client_with(&claims).await
}

#[tokio::test]
async fn what_the_application_says_is_in_one_order_with_what_clients_say() {
    let node = node().start().await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let list = ann.join("lobby").await;
    bob.join("lobby").await;
    let first = post(&node, "/rooms/lobby/chat", json!({"content": {"n": 1}})).await;
    assert_eq!(first, json!({"room": "lobby", "epoch": list["epoch"], "seq": 1}));
    let ok = ann.chat("lobby", 2).await;
    assert_eq!(ok["seq"], 2);
    let third = json!({"content": null, "from": {"id": "shop", "name": "Shop", "info": {"kind": "bot"}}});
    assert_eq!(post(&node, "/rooms/lobby/chat", third).await["seq"], 3);
    post(&node, "/rooms/lobby/chat", json!({"content": 4, "from": "ann"})).await;
    let expected = [
        (json!({"id": "app"}), json!({"n": 1})),
        (json!({"id": "ann", "name": "ann"}), json!(2)),
        (
            json!({"id": "shop", "name": "Shop", "info": {"kind": "bot"}}),
            Value::Null,
        ),
        (json!({"id": "ann"}), json!(4)),
    ];
    for (seq, (from, content)) in (1..).zip(expected) {
        let chat = bob.until("chat").await;
        assert_eq!(
            (&chat["seq"], &chat["from"], &chat["content"]),
            (&json!(seq), &from, &content)
        );
        assert_eq!(chat["room"], "lobby");
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_publishes_total", &[]), 4.0);
}

#[tokio::test]
async fn a_room_that_nobody_is_in_keeps_what_is_said_and_a_key_is_taken_once() {
    let node = node().start().await;
    let said = post(&node, "/rooms/attic/chat", json!({"content": "one", "key": "k"})).await;
    let again = post(&node, "/rooms/attic/chat", json!({"content": "other", "key": "k"})).await;
    assert_eq!(said, again, "the first content wins");
    let other = post(
        &node,
        "/rooms/attic/chat",
        json!({"content": "two", "key": "k", "from": "shop"}),
    )
    .await;
    assert_eq!(other["seq"], 2, "a key belongs to its speaker");
    let mut ann = node.client("ann").await;
    let list = ann
        .ask(json!({"type": "join", "room": "attic", "since": {"epoch": said["epoch"], "seq": 0}}))
        .await;
    assert_eq!((&list["recovered"], &list["seq"]), (&json!(true), &json!(2)));
    assert_eq!(heard(&mut ann, 2).await, [(1, json!("one")), (2, json!("two"))]);
    assert_eq!(node.metrics().await.sum("conclave_duplicate_publishes_total", &[]), 1.0);
}

#[tokio::test]
async fn what_no_client_could_say_is_refused_and_said_why() {
    let node = node().set("limits.message_bytes", "4KiB").start().await;
    let deep = |levels: usize| serde_json::from_str::<Value>(&("[".repeat(levels) + &"]".repeat(levels))).unwrap();
    let chat = "/rooms/lobby/chat";
    for (path, body, expected) in [
        (chat, json!({}), (422, "bad_body")),
        (chat, json!({"content": 1, "colour": "red"}), (422, "bad_body")),
        (chat, json!({"content": "x".repeat(5_000)}), (413, "too_large")),
        (chat, json!({"content": deep(32)}), (400, "bad_request")),
        (chat, json!({"content": 1, "key": ""}), (400, "bad_request")),
        (chat, json!({"content": 1, "key": "x".repeat(65)}), (400, "bad_request")),
        (chat, json!({"content": 1, "from": ""}), (400, "bad_request")),
        (
            chat,
            json!({"content": 1, "from": {"id": "a", "name": "x\ny"}}),
            (400, "bad_request"),
        ),
        (chat, json!({"content": 1, "from": {"name": "x"}}), (422, "bad_body")),
        (
            chat,
            json!({"content": 1, "from": {"id": "a", "info": {"x": "y".repeat(1_100)}}}),
            (400, "bad_request"),
        ),
        ("/rooms/a%2a/chat", json!({"content": 1}), (404, "bad_room")),
        ("/rooms/%02lobby/chat", json!({"content": 1}), (404, "bad_room")),
        ("/rooms/%02%02post/chat", json!({"content": 1}), (404, "bad_room")),
        ("/rooms/%20lobby/chat", json!({"content": 1}), (404, "bad_room")),
        ("/users/a%00b/message", json!({"content": 1}), (404, "bad_user")),
        (
            "/users/ann/message",
            json!({"content": "x".repeat(5_000)}),
            (413, "too_large"),
        ),
        ("/users/ann/kick", json!({"ban_s": 2_592_001}), (400, "bad_request")),
        ("/users/ann/kick", json!({"ban_s": -1}), (422, "bad_body")),
        ("/revocations", json!({}), (400, "bad_request")),
        ("/revocations", json!({"user": "ann", "jti": "t"}), (400, "bad_request")),
        ("/revocations", json!({"user": "ann", "expires": 1}), (409, "over")),
        ("/batch", json!({"operations": []}), (400, "bad_request")),
        (
            "/batch",
            json!({"operations": vec![json!({"operation": "nodes"}); 101]}),
            (400, "bad_request"),
        ),
        (
            "/batch",
            json!({"operations": [{"operation": "fly"}]}),
            (422, "bad_body"),
        ),
    ] {
        let (status, code) = refused(&node, "POST", path, body.clone()).await;
        assert_eq!((status, code.as_str()), expected, "{path} {body}");
    }
    for (path, expected) in [
        ("/rooms/lobby/users?limit=0", (400, "bad_request")),
        ("/rooms/lobby/users?limit=1001", (400, "bad_request")),
        ("/rooms/lobby/history?before=9007199254740992", (400, "bad_request")),
        ("/rooms/lobby/history?limit=x", (400, "bad_request")),
        ("/rooms/nowhere/history", (404, "not_found")),
        ("/rooms?by=colour", (400, "bad_request")),
        ("/rooms?limit=101", (400, "bad_request")),
    ] {
        let (status, code) = refused(&node, "GET", path, Value::Null).await;
        assert_eq!((status, code.as_str()), expected, "{path}");
    }
    // Half a surrogate pair, which serde_json cannot write.
    let text = node
        .ask("POST", "/api/v1/rooms/lobby/chat")
        .bearer(&super::backend(&node, "conclave:publish"))
        .header("Content-Type", "application/json")
        .body(r#"{"content":"\ud800"}"#)
        .answer()
        .await;
    assert_eq!(text.status, 400, "{text:?}");
    assert_eq!(
        get(&node, "/rooms?by=rate").await,
        json!({"rooms": []}),
        "nothing was said"
    );
}

#[tokio::test]
async fn every_operation_needs_its_scope() {
    let node = node().start().await;
    post(&node, "/rooms/lobby/chat", json!({"content": 1})).await;
    let content = json!({"content": 1});
    let revoke = json!({"jti": "t-1"});
    let operations = [
        ("publish", "POST", "/rooms/lobby/chat", Some(&content)),
        ("message", "POST", "/users/ann/message", Some(&content)),
        ("read", "GET", "/rooms/lobby/users", None),
        ("read", "GET", "/rooms/lobby/history", None),
        ("kick", "DELETE", "/rooms/lobby/users/ann", None),
        ("kick", "POST", "/users/ann/kick", None),
        ("revoke", "POST", "/revocations", Some(&revoke)),
        ("read", "GET", "/rooms", None),
        ("nodes", "GET", "/nodes", None),
    ];
    let every = ["publish", "message", "read", "kick", "revoke", "nodes"];
    for (scope, method, path, body) in operations {
        let (status, answer) = ask_as(&node, &format!("conclave:{scope}"), method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        let others = every.iter().filter(|other| **other != scope);
        let others: Vec<String> = others.map(|other| format!("conclave:{other}")).collect();
        let (status, answer) = ask_as(&node, &others.join(" "), method, path, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (403, &json!("scope_missing")),
            "{method} {path}"
        );
    }
    // A batch needs what its operations need, each for itself.
    let batch = json!({"operations": [
        {"operation": "chat", "room": "lobby", "content": 1},
        {"operation": "message", "user": "ann", "content": 1},
        {"operation": "users", "room": "lobby"},
        {"operation": "history", "room": "lobby"},
        {"operation": "remove", "room": "lobby", "user": "ann"},
        {"operation": "kick", "user": "ann"},
        {"operation": "revoke", "jti": "t-2"},
        {"operation": "rooms"},
        {"operation": "nodes"},
    ]});
    let wanted = [
        "publish", "message", "read", "read", "kick", "kick", "revoke", "read", "nodes",
    ];
    for scope in every {
        let (status, answer) = ask_as(&node, &format!("conclave:{scope}"), "POST", "/batch", Some(&batch)).await;
        assert_eq!(status, 200, "{answer}");
        let statuses: Vec<&Value> = answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["status"])
            .collect();
        for (wants, status) in wanted.iter().zip(statuses) {
            assert_eq!(*status, if *wants == scope { 200 } else { 403 }, "{scope}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_message_reaches_every_connection_of_its_user_and_nobody_else() {
    let node = node().start().await;
    let mut tabs = [
        node.client("ann").await,
        node.client("ann").await,
        node.client("ann").await,
    ];
    let mut others = [node.client("bob").await, probe(&node, "ann").await];
    let said = post(&node, "/users/ann/message", json!({"content": {"order": 17}})).await;
    assert_eq!(said, json!({"accepted": true}));
    post(
        &node,
        "/users/ann/message",
        json!({"content": "more", "from": {"id": "shop", "name": "Shop"}, "key": "k"}),
    )
    .await;
    post(
        &node,
        "/users/ann/message",
        json!({"content": "lost", "from": "shop", "key": "k"}),
    )
    .await;
    post(
        &node,
        "/users/bob/message",
        json!({"content": "for bob", "from": "shop", "key": "k"}),
    )
    .await;
    post(&node, "/users/nobody/message", json!({"content": "nobody hears it"})).await;
    for tab in &mut tabs {
        let first = tab.expect("message").await;
        assert_eq!(first["content"], json!({"order": 17}));
        assert!(first.get("from").is_none() && first["time"].is_u64(), "{first}");
        let second = tab.expect("message").await;
        assert_eq!(
            (&second["content"], &second["from"]["name"]),
            (&json!("more"), &json!("Shop"))
        );
        assert_eq!(tab.pending().await, [Value::Null; 0], "a retry is said once");
    }
    assert_eq!(
        others[0].expect("message").await["content"],
        "for bob",
        "a key belongs to its addressee too"
    );
    for other in &mut others {
        assert_eq!(other.pending().await, [Value::Null; 0]);
    }
    assert_eq!(node.metrics().await.sum("conclave_user_messages_total", &[]), 7.0);
}

#[tokio::test]
async fn users_and_history_are_read_in_pages() {
    let node = node().start().await;
    let mut clients = Vec::new();
    for n in 0..7 {
        let mut client = node.client(&format!("u{n}")).await;
        client.join("lobby").await;
        client.chat("lobby", n).await;
        clients.push(client);
    }
    let mut seen = Vec::new();
    let mut path = "/rooms/lobby/users?limit=3".to_owned();
    loop {
        let page = get(&node, &path).await;
        assert_eq!((&page["room"], &page["count"]), (&json!("lobby"), &json!(7)));
        let ids = page["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        if page["more"] == false {
            break;
        }
        path = format!("/rooms/lobby/users?limit=3&after={}", seen.last().unwrap());
    }
    assert_eq!(seen, (0..7).map(|n| format!("u{n}")).collect::<Vec<_>>());
    let nobody = get(&node, "/rooms/nowhere/users").await;
    assert_eq!((&nobody["users"], &nobody["count"]), (&json!([]), &json!(0)));

    let contents = |page: &Value| -> Vec<Value> {
        page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|chat| chat["content"].clone())
            .collect()
    };
    let latest = get(&node, "/rooms/lobby/history?limit=2").await;
    assert_eq!(
        (contents(&latest), &latest["more"]),
        (vec![json!(5), json!(6)], &json!(true))
    );
    assert_eq!((&latest["type"], &latest["first"]), (&json!("history"), &json!(1)));
    let before = get(&node, "/rooms/lobby/history?before=3").await;
    assert_eq!(
        (contents(&before), &before["more"]),
        (vec![json!(0), json!(1)], &json!(false))
    );
    let after = get(&node, "/rooms/lobby/history?after=5&limit=1").await;
    assert_eq!((contents(&after), &after["more"]), (vec![json!(5)], &json!(true)));
}

#[tokio::test]
async fn who_is_removed_leaves_with_every_connection_and_may_come_back() {
    let node = node().start().await;
    let mut tabs = [node.client("ann").await, node.client("ann").await];
    let mut shadow = probe(&node, "ann").await;
    let mut bob = node.client("bob").await;
    for client in tabs.iter_mut().chain([&mut shadow, &mut bob]) {
        client.join("lobby").await;
        client.join("attic").await;
    }
    bob.pending().await;
    let removed = delete(&node, "/rooms/lobby/users/ann").await;
    assert_eq!(removed, json!({"room": "lobby", "user": "ann"}));
    for tab in &mut tabs {
        let told = tab.until("removed").await;
        assert_eq!((&told["room"], &told["reason"]), (&json!("lobby"), &json!("kicked")));
        let error = tab.ask(json!({"type": "chat", "room": "lobby", "content": 1})).await;
        assert_eq!(error["code"], "not_joined");
        tab.chat("attic", 1).await;
    }
    let left = bob.until("left").await;
    assert_eq!((&left["room"], &left["user"]["id"]), (&json!("lobby"), &json!("ann")));
    // Once for the user, nothing of the other room, nothing for the probe.
    let presence = |message: &Value| message["type"] == "left" || message["type"] == "removed";
    assert!(!bob.pending().await.iter().any(presence));
    shadow.chat("lobby", "still here").await;
    assert_eq!(
        delete(&node, "/rooms/lobby/users/ann").await,
        removed,
        "twice does no harm"
    );
    delete(&node, "/rooms/nowhere/users/nobody").await;
    for tab in &mut tabs {
        tab.join("lobby").await;
        tab.chat("lobby", "back").await;
    }
}

#[tokio::test]
async fn who_is_kicked_is_out_and_who_is_banned_stays_out() {
    let node = node().start().await;
    let mut tabs = [node.client("ann").await, node.client("ann").await];
    let mut bob = node.client("bob").await;
    // With no body at all, as curl -X POST sends it.
    let (status, kicked) = ask(&node, "POST", "/users/ann/kick", None).await;
    assert_eq!((status, kicked), (200, json!({"user": "ann"})));
    for tab in &mut tabs {
        assert_eq!(within("the close", tab.closed()).await, (1008, "kicked".to_owned()));
    }
    let mut ann = node.client("ann").await;
    let banned = post(&node, "/users/ann/kick", json!({"ban_s": 3600})).await;
    assert!(
        banned["banned_until"].as_u64().unwrap() >= token::now() + 3_590,
        "{banned}"
    );
    assert_eq!(within("the close", ann.closed()).await, (1008, "kicked".to_owned()));
    let mut again = node.socket().query_token(&node.token("ann")).open().await;
    assert_eq!(again.next().await, Some(Frame::Close(1008, "token_revoked".to_owned())));
    assert_eq!(bob.pending().await, [Value::Null; 0]);
}

#[tokio::test]
async fn tokens_are_taken_back_by_user_session_and_id() {
    let node = node().start().await;
    let claims = |sub: &str, jti: &str, iat: u64| {
        let mut claims = token::claims(sub);
        claims["jti"] = json!(jti);
        claims["iat"] = json!(iat);
        claims
    };
    let now = token::now();
    let mut old = node.client_with(&claims("ann", "a", now - 100)).await;
    let mut new = node.client_with(&claims("ann", "b", now)).await;
    let by_user = post(&node, "/revocations", json!({"user": "ann", "issued_before": now - 50})).await;
    assert_eq!(
        (&by_user["user"], &by_user["issued_before"]),
        (&json!("ann"), &json!(now - 50))
    );
    assert_eq!(
        within("the close", old.closed()).await,
        (1008, "token_revoked".to_owned())
    );
    assert_eq!(new.pending().await, [Value::Null; 0]);
    let by_token = post(&node, "/revocations", json!({"jti": "b", "expires": now + 3_600})).await;
    assert_eq!(by_token["expires"], now + 3_600);
    assert_eq!(
        within("the close", new.closed()).await,
        (1008, "token_revoked".to_owned())
    );
    let (mut one, mut other) = (node.client("bob").await, node.client("bob").await);
    post(&node, "/revocations", json!({"session": one.welcome["session"]})).await;
    assert_eq!(
        within("the close", one.closed()).await,
        (1008, "token_revoked".to_owned())
    );
    assert_eq!(other.pending().await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_batch_does_each_in_order_and_one_that_fails_stops_no_other() {
    let node = node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let mut operations: Vec<Value> = (0..40)
        .map(|n| json!({"operation": "chat", "room": "lobby", "content": n}))
        .collect();
    operations[7] = json!({"operation": "chat", "room": "lobby", "content": 7, "key": "x".repeat(65)});
    operations[9] = json!({"operation": "chat", "room": "lobby"});
    operations[11] = json!({"operation": "chat", "room": "lobby", "content": null});
    operations.push(json!({"operation": "message", "user": "ann", "content": "psst"}));
    operations.push(json!({"operation": "users", "room": "lobby"}));
    operations.push(json!({"operation": "history", "room": "lobby", "after": 36}));
    operations.push(json!({"operation": "history", "room": "nowhere"}));
    operations.push(json!({"operation": "remove", "room": "lobby", "user": "ann"}));
    operations.push(json!({"operation": "kick", "user": "nobody"}));
    operations.push(json!({"operation": "revoke", "jti": "t"}));
    operations.push(json!({"operation": "rooms"}));
    operations.push(json!({"operation": "nodes"}));
    let answer = post(&node, "/batch", json!({"operations": operations})).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), operations.len());
    let mut seq = 0;
    for (n, result) in results[..40].iter().enumerate() {
        if n == 7 || n == 9 {
            assert_eq!(
                (&result["status"], &result["problem"]["code"]),
                (&json!(400), &json!("bad_request"))
            );
        } else {
            seq += 1;
            assert_eq!(
                (&result["status"], &result["body"]["seq"]),
                (&json!(200), &json!(seq)),
                "{n}"
            );
        }
    }
    let statuses: Vec<&Value> = results[40..].iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, [200, 200, 200, 404, 200, 200, 200, 200, 200]);
    assert_eq!(results[41]["body"]["users"][0]["id"], "ann");
    assert_eq!(results[42]["body"]["messages"].as_array().unwrap().len(), 2);
    let mut contents: Vec<Value> = (0..40).filter(|n| *n != 7 && *n != 9).map(Value::from).collect();
    contents[9] = Value::Null;
    let heard: Vec<Value> = heard(&mut ann, 38)
        .await
        .into_iter()
        .map(|(_, content)| content)
        .collect();
    assert_eq!(heard, contents);
    assert_eq!(ann.until("removed").await["reason"], "kicked");
}

#[tokio::test]
async fn large_and_busy_rooms_are_listed_and_those_of_probes_are_not() {
    let node = node().set("server.name", "one").start().await;
    let mut clients = Vec::new();
    for (room, members) in [("large", 3), ("small", 1)] {
        for n in 0..members {
            let mut client = node.client(&format!("u{n}")).await;
            client.join(room).await;
            clients.push(client);
        }
    }
    let mut shadow = probe(&node, "prober").await;
    shadow.join("shadow").await;
    let rooms = get(&node, "/rooms?by=members").await;
    let names: Vec<&Value> = rooms["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["room"])
        .collect();
    assert_eq!(names, ["large", "small"]);
    assert_eq!(
        (&rooms["rooms"][0]["members"], &rooms["rooms"][0]["users"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(get(&node, "/rooms?limit=1").await["rooms"].as_array().unwrap().len(), 1);
    within("a rate", async {
        loop {
            post(&node, "/rooms/small/chat", json!({"content": 1})).await;
            let busy = get(&node, "/rooms?by=rate").await;
            if busy["rooms"][0]["room"] == "small" && busy["rooms"][0]["chats_per_second"].as_f64() > Some(0.0) {
                break;
            }
        }
    })
    .await;
    let nodes = get(&node, "/nodes").await;
    assert_eq!(
        (nodes["nodes"].as_array().unwrap().len(), &nodes["nodes"][0]["name"]),
        (1, &json!("one"))
    );
    // Probes are nobody.
    assert_eq!(nodes["nodes"][0]["connections"], 4);
}
