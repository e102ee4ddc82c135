//! Who may call the server API, how often, and what becomes of calls that come twice. What the operations do is in `api`.

use std::process::Command;

use conclave::api::keys::{digest_of, hash_text};
use serde_json::{Value, json};

use crate::harness::node::ORIGIN;
use crate::harness::{self, Answer, Ask, Builder, Node, redis, token};

/// A key that every node of these tests knows.
const KEY: &str = "ck_canary7KqAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const CHAT: &str = "/api/v1/rooms/lobby/chat";

fn entry(name: &str, key: &str, rest: &str) -> String {
    format!("name = \"{name}\"\nhash = \"{}\"\n{rest}", hash_text(&digest_of(key)))
}

fn node() -> Builder {
    harness::node().entry("api.keys", &entry("backend", KEY, "scopes = [\"publish\", \"read\"]"))
}

fn post(node: &Node, path: &str, body: &Value) -> Ask {
    let ask = node.ask("POST", path).header("Content-Type", "application/json");
    ask.body(body.to_string())
}

fn say(node: &Node, content: &str) -> Ask {
    post(node, CHAT, &json!({ "content": content })).bearer(KEY)
}

/// The problem, after a look at its shape.
fn problem(answer: &Answer) -> Value {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], answer.status);
    for field in ["type", "title", "code", "detail", "fix"] {
        assert!(problem[field].is_string(), "{field}: {problem}");
    }
    problem
}

async fn check(ask: Ask, status: u16, code: &str) -> Answer {
    let answer = ask.answer().await;
    assert_eq!(answer.status, status, "{ask:?}: {answer:?}");
    let problem = problem(&answer);
    assert_eq!(problem["code"], code, "{ask:?}: {problem}");
    answer
}

#[tokio::test]
async fn without_anybody_who_may_call_it_there_is_none() {
    let node = harness::node().start().await;
    for path in [CHAT, "/api/v1/openapi.json", "/api/v1"] {
        assert_eq!(node.ask("GET", path).bearer(KEY).answer().await.status, 404);
    }
}

#[tokio::test]
async fn only_a_bearer_in_the_one_header_counts() {
    let node = node().start().await;
    let body = json!({"content": "hi"});
    let ask = || post(&node, CHAT, &body);
    let answer = check(ask(), 401, "key_missing").await;
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"conclave\""));
    check(ask().header("Authorization", "Basic Y2s6"), 401, "key_missing").await;
    check(ask().cookie(KEY), 401, "key_missing").await;
    let in_query = post(&node, &format!("{CHAT}?token={KEY}&access_token={KEY}"), &body);
    check(in_query, 401, "key_missing").await;
    check(ask().bearer(KEY).bearer(KEY), 400, "bad_request").await;
    let wrong = format!("{}B", &KEY[..KEY.len() - 1]);
    let answer = check(ask().bearer(&wrong), 401, "key_wrong").await;
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    // Tokens are not asked for scopes unless api.jwt is set.
    check(ask().bearer(&node.token("ann")), 401, "key_wrong").await;
    let answer = ask().bearer(KEY).answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn web_pages_are_turned_away_whatever_they_carry() {
    let node = node().start().await;
    check(say(&node, "hi").origin("https://evil.example"), 403, "origin").await;
    check(say(&node, "hi").origin("null"), 403, "origin").await;
    let answer = say(&node, "hi").origin(ORIGIN).answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let preflight = node.ask("OPTIONS", CHAT).origin(ORIGIN);
    let preflight = preflight.header("Access-Control-Request-Method", "POST");
    let answer = preflight.answer().await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_where_its_rooms_say() {
    let bot = "ck_bot";
    let old = "ck_old";
    let node = node()
        .entry(
            "api.keys",
            &entry("bot", bot, "scopes = [\"publish\"]\nrooms = [\"team/*\", \"lobby\"]"),
        )
        .entry(
            "api.keys",
            &entry("old", old, "scopes = [\"publish\"]\nexpires = \"2020-01-31\""),
        )
        .start()
        .await;
    let body = json!({"content": "hi"});
    let answer = check(
        post(&node, "/api/v1/users/ann/kick", &json!({})).bearer(KEY),
        403,
        "scope_missing",
    )
    .await;
    assert!(answer.body.contains("kick"), "{}", answer.body);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"kick\""), "{challenge}");
    for (room, status) in [("team%2F1", 200), ("lobby", 200), ("lobby2", 403), ("team", 403)] {
        let ask = post(&node, &format!("/api/v1/rooms/{room}/chat"), &body).bearer(bot);
        assert_eq!(ask.answer().await.status, status, "{room}");
    }
    check(
        node.ask("GET", "/api/v1/rooms/lobby/users").bearer(bot),
        403,
        "scope_missing",
    )
    .await;
    check(post(&node, CHAT, &body).bearer(old), 401, "key_expired").await;
}

#[tokio::test]
async fn a_token_with_a_scope_may_call_where_that_is_allowed() {
    let node = node().set("api.jwt", "true").start().await;
    let body = json!({"content": "hi"});
    let ask = |claims: Value| {
        let mut all = token::claims("service");
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        post(&node, CHAT, &body).bearer(&node.token_with(&all))
    };
    assert_eq!(
        ask(json!({"scope": "openid conclave:publish"})).answer().await.status,
        200
    );
    assert_eq!(ask(json!({"scope": ["conclave:publish"]})).answer().await.status, 200);
    let granted = json!({"scope": "conclave:*", "rooms": {"lobby": ["chat"]}});
    assert_eq!(ask(granted).answer().await.status, 200);
    let elsewhere = json!({"scope": "conclave:*", "rooms": {"lobby": ["join"], "hall": ["chat"]}});
    check(ask(elsewhere), 403, "room_forbidden").await;
    for claims in [json!({}), json!({"scope": "publish"}), json!({"scope": 7})] {
        check(ask(claims), 403, "scope_missing").await;
    }
    check(
        ask(json!({"scope": "conclave:publish", "probe": true})),
        403,
        "scope_missing",
    )
    .await;
    check(ask(json!({"scope": "conclave:read"})), 403, "scope_missing").await;
    check(
        ask(json!({"scope": "conclave:publish", "exp": 1})),
        401,
        "token_expired",
    )
    .await;
    check(post(&node, CHAT, &body).bearer("a.b.c"), 401, "token_malformed").await;
    // Keys go on.
    assert_eq!(say(&node, "hi").answer().await.status, 200);
}

#[tokio::test]
async fn wrong_keys_are_throttled_and_good_ones_of_the_same_address_are_not() {
    let node = node().start().await;
    let mut throttled = None;
    for _ in 0..200 {
        let answer = post(&node, CHAT, &json!({"content": "hi"}))
            .bearer("ck_guess")
            .answer()
            .await;
        if answer.status == 429 {
            throttled = Some(answer);
            break;
        }
        assert_eq!(answer.status, 401);
    }
    let throttled = throttled.expect("more than 20 at once are too many");
    assert_eq!(problem(&throttled)["code"], "throttled");
    assert_eq!(throttled.header("retry-after"), Some("1"));
    assert_eq!(say(&node, "hi").answer().await.status, 200);
    let limit = [("limit", "api_wrong_keys_per_second")];
    node.metric_reaches("conclave_rate_limited_total", &limit, 1.0).await;
}

#[tokio::test]
async fn a_key_has_its_own_rate() {
    let slow = "ck_slow";
    let node = node()
        .set("api.requests_burst", "0")
        .entry(
            "api.keys",
            &entry("slow", slow, "scopes = [\"publish\"]\nrequests_per_second = 1"),
        )
        .start()
        .await;
    let ask = || post(&node, CHAT, &json!({"content": "hi"})).bearer(slow);
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(ask().answer().await);
        if answers.last().unwrap().status == 429 {
            break;
        }
    }
    let last = answers.last().unwrap();
    assert_eq!(problem(last)["code"], "rate_limited");
    assert_eq!(last.header("retry-after"), Some("1"));
    assert_eq!(answers[0].status, 200);
    assert_eq!(say(&node, "hi").answer().await.status, 200);
    let counted = [("operation", "chat"), ("result", "throttled")];
    node.metric_reaches("conclave_api_requests_total", &counted, 1.0).await;
    let limit = [("limit", "api_requests_per_second")];
    node.metric_reaches("conclave_rate_limited_total", &limit, 1.0).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_a_problem_of_its_own() {
    let node = node().set("api.body_bytes", "1KiB").start().await;
    let raw = |body: &str| {
        node.ask("POST", CHAT)
            .bearer(KEY)
            .header("Content-Type", "application/json")
            .body(body)
    };
    check(raw("{\"content\":"), 400, "bad_request").await;
    check(raw(""), 400, "bad_request").await;
    check(raw("{\"content\":1,\"nonsense\":2}"), 422, "bad_body").await;
    check(raw("[]"), 422, "bad_body").await;
    let text = node.ask("POST", CHAT).bearer(KEY).header("Content-Type", "text/plain");
    check(text.body("{\"content\":1}"), 415, "media_type").await;
    let long = format!("{{\"content\":\"{}\"}}", "x".repeat(2_000));
    check(raw(&long), 413, "too_large").await;
    node.metric_reaches("conclave_refused_total", &[("limit", "api_body_bytes")], 1.0)
        .await;
    check(
        node.ask("GET", "/api/v1/rooms/%FF/users").bearer(KEY),
        400,
        "bad_request",
    )
    .await;
    check(node.ask("GET", "/api/v1/nothing").bearer(KEY), 404, "not_found").await;
    check(node.ask("GET", "/api/v1").bearer(KEY), 404, "not_found").await;
    assert_eq!(node.ask("GET", "/api/v1/").answer().await.status, 404);
    let answer = check(node.ask("PUT", CHAT).bearer(KEY), 405, "method").await;
    assert_eq!(answer.header("allow"), Some("POST"));
    check(node.ask("GET", "/api/v1/nothing"), 401, "key_missing").await;
}

#[tokio::test]
async fn the_description_is_for_everybody() {
    let node = node().start().await;
    let answer = node.ask("GET", "/api/v1/openapi.json").answer().await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], "/api/v1");
    assert!(!answer.body.contains("canary7Kq"));
}

#[tokio::test]
async fn who_did_what_is_in_the_log_and_no_key_and_no_content() {
    let node = node().set("log.level", "error,conclave::runtime=info").start().await;
    assert_eq!(say(&node, "canary7Kq said").answer().await.status, 200);
    check(
        post(&node, "/api/v1/users/ann/kick", &json!({})).bearer(KEY),
        403,
        "scope_missing",
    )
    .await;
    check(
        say(&node, "x").replace("Authorization", Some("Bearer ck_canary7KqWrong")),
        401,
        "key_wrong",
    )
    .await;
    let done = node
        .logged("the chat", |line| line["action"] == "chat" && line["result"] == "ok")
        .await;
    assert_eq!(done["target"], "conclave::audit");
    assert_eq!((&done["who"], &done["via"]), (&json!("backend"), &json!("key")));
    assert_eq!((&done["subject"], &done["status"]), (&json!("room lobby"), &json!(200)));
    let refused = node.logged("the kick", |line| line["action"] == "kick").await;
    assert_eq!(
        (&refused["subject"], &refused["result"]),
        (&json!("user ann"), &json!("scope_missing"))
    );
    node.logged("the wrong key", |line| line["result"] == "key_wrong").await;
    let seen = node.process.seen();
    let said = [seen.stdout.join("\n"), seen.stderr].concat();
    assert!(!said.contains("canary7Kq"), "{said}");
}

#[tokio::test]
async fn a_call_that_comes_twice_under_one_key_is_done_once() {
    let node = node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let ask = |content: &str| say(&node, content).header("Idempotency-Key", "\"order-17\"");
    let first = ask("one").answer().await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    let again = ask("one").replace("Idempotency-Key", Some("order-17")).answer().await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("content-type"), Some("application/json"));
    check(ask("two"), 422, "idempotency_key_reused").await;
    // Another operation, and another room: other things.
    let elsewhere = post(&node, "/api/v1/rooms/hall/chat", &json!({"content": "one"})).bearer(KEY);
    check(
        elsewhere.header("Idempotency-Key", "order-17"),
        422,
        "idempotency_key_reused",
    )
    .await;
    check(ask("one").header("Idempotency-Key", "b"), 400, "bad_request").await;
    check(ask("one").replace("Idempotency-Key", Some("a b")), 400, "bad_request").await;
    check(
        ask("one").replace("Idempotency-Key", Some(&"k".repeat(256))),
        400,
        "bad_request",
    )
    .await;
    assert_eq!(say(&node, "last").answer().await.status, 200);
    assert_eq!(ann.until("chat").await["content"], "one");
    assert_eq!(ann.until("chat").await["content"], "last");
}

#[tokio::test]
async fn two_nodes_do_it_once_together() {
    let store = redis().start().await;
    let start = async || {
        let node = node().set("backplane.kind", "redis").set("backplane.url", &store.url());
        node.start().await
    };
    let (a, b) = (start().await, start().await);
    let ask = |node: &Node, content: &str| say(node, content).header("Idempotency-Key", "k1");
    let first = ask(&a, "one").answer().await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = ask(&b, "one").answer().await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    check(ask(&b, "two"), 422, "idempotency_key_reused").await;
    // At the same moment: one does it, the other waits for its answer or is told to.
    let (one, other) = (
        say(&a, "three").header("Idempotency-Key", "k2"),
        say(&b, "three").header("Idempotency-Key", "k2"),
    );
    let (one, other) = tokio::join!(one.answer(), other.answer());
    for answer in [&one, &other] {
        assert!(matches!(answer.status, 200 | 409), "{answer:?}");
    }
    assert!(one.status == 200 || other.status == 200);
    let history = a.ask("GET", "/api/v1/rooms/lobby/history").bearer(KEY).answer().await;
    let history: Value = serde_json::from_str(&history.body).unwrap();
    let said: Vec<_> = history["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|said| &said["content"])
        .collect();
    assert_eq!(said, ["one", "three"]);
}

#[tokio::test]
async fn a_key_that_was_just_made_is_let_in() {
    let made = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["api-key", "new", "--name", "made", "--scope", "publish", "-q"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (key, entry) = (
        String::from_utf8(made.stdout).unwrap(),
        String::from_utf8(made.stderr).unwrap(),
    );
    let key = key.trim();
    assert!(key.starts_with("ck_") && !entry.contains(key), "{entry}");
    let table = entry.trim().strip_prefix("[[api.keys]]\n").unwrap();
    let node = harness::node().entry("api.keys", table).start().await;
    let body = json!({"content": "hi"});
    assert_eq!(post(&node, CHAT, &body).bearer(key).answer().await.status, 200);
    // The hash may come from the environment instead.
    let hash = table.lines().find_map(|line| line.strip_prefix("hash = ")).unwrap();
    let node = harness::node()
        .entry("api.keys", "name = \"made\"\nscopes = [\"publish\"]")
        .environment("CONCLAVE_API__KEYS__0__HASH", hash.trim_matches('"'))
        .start()
        .await;
    assert_eq!(post(&node, CHAT, &body).bearer(key).answer().await.status, 200);
}
