//! `open`, `join` and `chat`: allowed, denied, rewritten.

use axum::http::Version;
use serde_json::json;

use super::{asking, signing};
use crate::harness::backend::{self, Backend, json_answer, status};
use crate::harness::tls::Certificate;
use crate::harness::{self, token};

#[tokio::test]
async fn whoever_the_application_lets_in_enters_and_the_others_are_told_why_not() {
    let backend = Backend::start().await;
    backend.answers(|asked| {
        let answer = match asked.event["user"]["id"].as_str() {
            Some("ann") => backend::allow(),
            Some("bob") => json_answer(&json!({"allow": false, "reason": "banned"})),
            Some("cid") => status(204),
            _ => status(403),
        };
        std::future::ready(answer)
    });
    let node = asking(&backend, "events = [\"join\"]").start().await;
    let mut ann = node.client_with(&named("ann")).await;
    ann.join("lobby").await;
    let asked = backend.asked_times(1).await;
    let event = &asked[0].event;
    assert_eq!(asked[0].path, "/hook");
    assert_eq!(event["event"], "join");
    assert_eq!(event["room"], "lobby");
    assert_eq!(event["user"], json!({"id": "ann", "name": "Ann"}));
    assert_eq!(event["session"], ann.welcome["session"]);
    assert_eq!(event["id"], asked[0].header("webhook-id"));
    assert!(event["time"].as_u64().is_some() && event["node"].is_string(), "{event}");

    let mut bob = node.client("bob").await;
    let error = bob.ask(json!({"type": "join", "room": "lobby"})).await;
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&json!("forbidden"), &json!("banned")),
        "{error}"
    );
    let error = bob.ask(json!({"type": "chat", "room": "lobby", "content": 1})).await;
    assert_eq!(error["code"], "not_joined");
    let mut cid = node.client("cid").await;
    assert_eq!(cid.join("lobby").await["count"], 2);
    let mut dan = node.client("dan").await;
    let error = dan.ask(json!({"type": "join", "room": "lobby"})).await;
    assert_eq!(error["code"], "forbidden");
    assert!(error.get("reason").is_none(), "{error}");
}

fn named(sub: &str) -> serde_json::Value {
    let mut claims = token::claims(sub);
    let (first, rest) = sub.split_at(1);
    claims["name"] = json!(first.to_uppercase() + rest);
    claims
}

#[tokio::test]
async fn only_the_rooms_of_a_hook_are_asked_about_and_the_closest_pattern_decides() {
    let (wide, close) = (Backend::start().await, Backend::start().await);
    wide.says(json!({"allow": false}));
    let node = signing(harness::node())
        .entry(
            "hooks.ask",
            &format!(
                "url = \"{}\"\nname = \"wide\"\nevents = [\"join\"]\nrooms = [\"team/*\"]",
                wide.url
            ),
        )
        .entry(
            "hooks.ask",
            &format!(
                "url = \"{}\"\nname = \"close\"\nevents = [\"join\"]\nrooms = [\"team/a*\"]",
                close.url
            ),
        )
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    ann.join("team/ab").await;
    let error = ann.ask(json!({"type": "join", "room": "team/b"})).await;
    assert_eq!(error["code"], "forbidden");
    assert_eq!((wide.asked().len(), close.asked().len()), (1, 1));
    // Who is in already only gets the list again.
    ann.join("team/ab").await;
    assert_eq!(close.asked().len(), 1);
    // Bad names and missing grants never reach the application.
    let mut bob = node
        .client_with(&json!({"sub": "bob", "exp": token::now() + 60, "rooms": {"lobby": ["join"]}}))
        .await;
    assert_eq!(
        bob.ask(json!({"type": "join", "room": "team/b"})).await["code"],
        "forbidden"
    );
    assert_eq!(
        bob.ask(json!({"type": "join", "room": "team/*"})).await["code"],
        "bad_room"
    );
    assert_eq!((wide.asked().len(), close.asked().len()), (1, 1));
}

#[tokio::test]
async fn what_is_said_is_allowed_denied_or_rewritten_and_keeps_its_order() {
    let backend = Backend::start().await;
    backend.answers(|asked| async move {
        match asked.event["content"].as_str() {
            Some("bad word") => json_answer(&json!({"allow": false, "reason": "language"})),
            // The first one takes longest: nothing overtakes it.
            Some("slow") => {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                backend::allow()
            }
            Some("http://x") => json_answer(&json!({"allow": true, "content": {"text": "x", "link": true}})),
            Some("nothing") => json_answer(&json!({"allow": true, "content": null})),
            _ => backend::allow(),
        }
    });
    let node = asking(&backend, "events = [\"chat\"]\nrooms = [\"lobby\"]")
        .start()
        .await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for client in [&mut ann, &mut bob] {
        client.join("lobby").await;
        client.join("free").await;
    }
    for (reference, content) in ["slow", "bad word", "http://x", "nothing", "last"].iter().enumerate() {
        ann.send(json!({"type": "chat", "room": "lobby", "content": content, "ref": reference, "key": format!("k{reference}")}))
            .await;
    }
    for (seq, content) in [
        (1, json!("slow")),
        (2, json!({"text": "x", "link": true})),
        (3, json!(null)),
        (4, json!("last")),
    ] {
        let chat = bob.until("chat").await;
        assert_eq!((&chat["seq"], &chat["content"]), (&json!(seq), &content));
    }
    let error = ann.until("error").await;
    assert_eq!(
        (&error["ref"], &error["reason"]),
        (&json!(1), &json!("language")),
        "{error}"
    );
    assert_eq!(error["code"], "forbidden");
    let events: Vec<_> = backend.asked().iter().map(|asked| asked.event.clone()).collect();
    assert_eq!(events.len(), 5);
    assert_eq!((&events[0]["room"], &events[0]["key"]), (&json!("lobby"), &json!("k0")));
    ann.chat("free", "bad word").await;
    assert_eq!(backend.asked().len(), 5, "nobody asks about that room");
    // The first content with a key wins, also where it was rewritten.
    ann.send(json!({"type": "chat", "room": "lobby", "content": "last", "key": "k2", "ref": "again"}))
        .await;
    let ok = ann.find("the ok", |answer| answer["ref"] == "again").await;
    assert_eq!(ok["seq"], 2, "{ok}");
}

#[tokio::test]
async fn a_join_that_was_asked_for_and_left_meanwhile_stays_left() {
    let backend = Backend::start().await;
    let (open, opened) = tokio::sync::watch::channel(false);
    backend.answers(move |_| {
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            backend::allow()
        }
    });
    let node = asking(&backend, "events = [\"join\"]\ntimeout = \"5m\"").start().await;
    let mut ann = node.client("ann").await;
    ann.send(json!({"type": "join", "room": "lobby", "ref": 1})).await;
    ann.send(json!({"type": "leave", "room": "lobby", "ref": 2})).await;
    ann.send(json!({"type": "chat", "room": "lobby", "content": 1, "ref": 3}))
        .await;
    let mut gone = node.client("gone").await;
    gone.send(json!({"type": "join", "room": "lobby"})).await;
    backend.asked_times(2).await;
    drop(gone);
    open.send(true).unwrap();
    assert_eq!(ann.find("1", |answer| answer["ref"] == 1).await["type"], "list");
    assert_eq!(ann.find("2", |answer| answer["ref"] == 2).await["type"], "ok");
    assert_eq!(ann.find("3", |answer| answer["ref"] == 3).await["code"], "not_joined");
    node.metric_reaches("conclave_connections_closed_total", &[], 1.0).await;
    // Who left while we asked has not been let in.
    let mut bob = node.client("bob").await;
    assert_eq!(bob.join("lobby").await["count"], 1);
}

#[tokio::test]
async fn who_is_removed_or_revoked_while_the_application_is_asked_says_nothing_more() {
    let backend = Backend::start().await;
    let (open, opened) = tokio::sync::watch::channel(false);
    backend.answers(move |_| {
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            backend::allow()
        }
    });
    let node = asking(&backend, "events = [\"chat\"]\ntimeout = \"5m\"")
        .set("api.jwt", "true")
        .start()
        .await;
    let mut listener = node.client("listener").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for client in [&mut listener, &mut ann, &mut bob] {
        client.join("lobby").await;
    }
    for client in [&mut ann, &mut bob] {
        client
            .send(json!({"type": "chat", "room": "lobby", "content": "late", "ref": 1}))
            .await;
    }
    backend.asked_times(2).await;
    for (method, path) in [("DELETE", "/rooms/lobby/users/ann"), ("POST", "/users/bob/kick")] {
        let (status, answer) = crate::api::ask(&node, method, path, None).await;
        assert!(status < 300, "{path}: {answer}");
    }
    ann.until("removed").await;
    assert_eq!(bob.closed().await, (1008, "kicked".to_owned()));
    open.send(true).unwrap();
    let answer = ann.find("the answer", |answer| answer["ref"] == 1).await;
    assert_eq!(answer["code"], "not_joined", "{answer}");
    assert!(listener.pending().await.iter().all(|frame| frame["type"] != "chat"));
}

#[tokio::test]
async fn a_connection_is_let_in_turned_away_or_changed_before_it_begins() {
    let backend = Backend::start().await;
    backend.answers(|asked| {
        let answer = match asked.event["user"]["id"].as_str() {
            Some("bob") => json_answer(&json!({"allow": false, "reason": "unpaid"})),
            Some("cid") => json_answer(&json!({
                "allow": true, "user": {"name": "Cid the Great", "info": {"level": 7}},
                "rooms": {"lobby": ["join"], "den": ["*"]}, "expires_in": 600,
            })),
            _ => backend::allow(),
        };
        std::future::ready(answer)
    });
    let node = asking(&backend, "events = [\"open\"]").start().await;
    let ann = node.client("ann").await;
    assert_eq!(ann.welcome["user"], json!({"id": "ann", "name": "ann"}));
    let asked = backend.asked_times(1).await;
    let event = &asked[0].event;
    assert_eq!((&event["event"], &event["place"]), (&json!("open"), &json!("query")));
    assert!(
        event.get("session").is_none() && !event.to_string().contains("eyJ"),
        "{event}"
    );

    let mut bob = node.socket().query_token(&node.token("bob")).open().await;
    bob.expect_close(1008, "kicked").await;
    let claims = json!({"sub": "cid", "name": "Cid", "exp": token::now() + 3_600,
        "rooms": {"lobby": ["*"], "cellar": ["*"]}});
    let mut cid = node.client_with(&claims).await;
    assert_eq!(
        cid.welcome["user"],
        json!({"id": "cid", "name": "Cid the Great", "info": {"level": 7}})
    );
    let expires = cid.welcome["expires"].as_u64().unwrap();
    assert!(expires <= token::now() + 600, "{expires}");
    cid.join("lobby").await;
    for (kind, room, code) in [
        ("chat", "lobby", "forbidden"),
        ("join", "den", "forbidden"),
        ("join", "cellar", "forbidden"),
    ] {
        let answer = cid.ask(json!({"type": kind, "room": room, "content": 1})).await;
        assert_eq!(answer["code"], code, "{kind} {room}: {answer}");
    }
    // A new token changes nothing of that.
    let fresh = json!({"sub": "cid", "exp": token::now() + 7_200});
    let ok = cid.ask(json!({"type": "auth", "token": node.token_with(&fresh)})).await;
    assert!(ok["type"] == "ok" && ok["expires"] == expires, "{ok}");
    assert_eq!(
        cid.ask(json!({"type": "join", "room": "cellar"})).await["code"],
        "forbidden"
    );
    // A bad token asks nobody.
    let before = backend.asked().len();
    let mut nobody = node.socket().query_token("a.b.c").open().await;
    nobody.expect_close(1008, "token_malformed").await;
    assert_eq!(backend.asked().len(), before);
}

#[tokio::test]
async fn probes_ask_nobody() {
    let backend = Backend::start().await;
    backend.says(json!({"allow": false}));
    let node = asking(&backend, "events = [\"open\", \"join\", \"chat\", \"call\"]")
        .start()
        .await;
    let mut claims = token::claims("probe");
    claims["probe"] = json!(true);
    let mut probe = node.client_with(&claims).await;
    probe.join("lobby").await;
    probe.chat("lobby", "hi").await;
    assert_eq!(
        probe.ask(json!({"type": "call", "name": "x"})).await["code"],
        "unknown_type"
    );
    assert_eq!(backend.asked().len(), 0);
}

#[tokio::test]
async fn over_tls_it_is_asked_on_one_connection_of_http_2() {
    let certificate = Certificate::new();
    let backend = Backend::start_tls(&certificate).await;
    let node = asking(&backend, "events = [\"join\", \"chat\"]")
        .set("hooks.ca_file", "hooks-ca.pem")
        .file("hooks-ca.pem", certificate.pem.as_bytes())
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 0..20 {
        ann.chat("lobby", number).await;
    }
    let asked = backend.asked();
    assert_eq!(asked.len(), 21);
    assert!(asked.iter().all(|asked| asked.version == Version::HTTP_2));
    // Somebody with another certificate is not asked.
    let stranger = Backend::start_tls(&Certificate::new()).await;
    let node = asking(&stranger, "events = [\"join\"]")
        .set("hooks.ca_file", "hooks-ca.pem")
        .file("hooks-ca.pem", certificate.pem.as_bytes())
        .start()
        .await;
    let mut ann = node.client("ann").await;
    let error = ann.ask(json!({"type": "join", "room": "lobby"})).await;
    assert_eq!(error["code"], "unavailable", "{error}");
    assert_eq!(stranger.asked().len(), 0);
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_hook_requests_total", &[("hook", "join"), ("result", "tls")]),
        1.0
    );
}

#[tokio::test]
async fn who_is_removed_while_the_application_is_asked_leaves_at_once_and_does_not_come_in() {
    let backend = Backend::start().await;
    let (open, opened) = tokio::sync::watch::channel(false);
    backend.answers(move |asked| {
        let mut opened = opened.clone();
        let waits = asked.event["room"] == "den";
        async move {
            if waits {
                opened.wait_for(|open| *open).await.unwrap();
            }
            backend::allow()
        }
    });
    let node = asking(&backend, "events = [\"join\"]\ntimeout = \"5m\"")
        .set("api.jwt", "true")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    ann.send(json!({"type": "join", "room": "den", "ref": 1})).await;
    backend.asked_times(2).await;
    let remove = async |room: &str| {
        let path = format!("/rooms/{room}/users/ann");
        let (status, answer) = crate::api::ask(&node, "DELETE", &path, None).await;
        assert!(status < 300, "{path}: {answer}");
    };
    // The question about one room keeps nobody in another.
    remove("lobby").await;
    assert_eq!(ann.until("removed").await["room"], "lobby");
    remove("den").await;
    let error = ann.find("the answer", |answer| answer["ref"] == 1).await;
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&json!("forbidden"), &json!("kicked")),
        "{error}"
    );
    open.send(true).unwrap();
    let error = ann.ask(json!({"type": "chat", "room": "den", "content": 1})).await;
    assert_eq!(error["code"], "not_joined");
    // Nobody is banned.
    ann.join("den").await;
}
