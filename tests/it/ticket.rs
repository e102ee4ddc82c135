//! Single-use tickets (`POST /ticket`): so that no URL holds a token.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::node::ORIGIN;
use crate::harness::{self, Answer, Ask, Builder, Client, Frame, Node, Redis, token};

/// Another page, whose origin is on a wildcard of the allow-list.
const WILD: &str = "https://a.example.org";
const USED: (u16, &str) = (1008, "ticket_used");

fn on(redis: &Redis) -> Builder {
    harness::node()
        .set("backplane.kind", "redis")
        .set("backplane.url", &redis.url())
}

fn post(node: &Node) -> Ask {
    node.ask("POST", "/ticket").body("")
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("JSON: {answer:?}"))
}

/// A ticket of somebody with these claims, for a page of `ORIGIN`.
async fn ticket_of(node: &Node, claims: &Value) -> String {
    let ask = post(node).bearer(&node.token_with(claims)).origin(ORIGIN);
    given(&ask.answer().await)
}

fn given(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    body(answer)["ticket"].as_str().expect("a ticket").to_owned()
}

/// A page of `ORIGIN` with a ticket.
fn with(node: &Node, ticket: &str) -> Ask {
    node.socket().query_token(ticket).origin(ORIGIN)
}

/// What the socket says first: `connected`, or the close that it ends with.
async fn first(ask: &Ask) -> Result<Value, (u16, String)> {
    let mut client = ask.open().await;
    loop {
        match client.next().await {
            Some(Frame::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                match message["type"].as_str() {
                    Some("connected") => return Ok(message),
                    Some("closing") => {}
                    _ => panic!("{message}"),
                }
            }
            Some(Frame::Close(code, reason)) => return Err((code, reason)),
            other => panic!("{other:?}"),
        }
    }
}

async fn is_used(ask: &Ask) {
    assert_eq!(first(ask).await, Err((USED.0, USED.1.to_owned())), "{ask:?}");
}

#[tokio::test]
async fn a_ticket_lets_its_user_in_once() {
    let node = harness::node().start().await;
    let mut claims = token::claims("ann");
    claims["info"] = json!({"colour": "red"});
    claims["rooms"] = json!({"lobby": ["join"]});
    let answer = post(&node)
        .bearer(&node.token_with(&claims))
        .origin(ORIGIN)
        .answer()
        .await;
    let ticket = given(&answer);
    assert_eq!(body(&answer)["expires_in"], 10);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(ticket.starts_with("t_") && ticket.len() == 45, "{ticket}");

    let mut ann = with(&node, &ticket).open().await.welcomed().await;
    assert_eq!(
        ann.welcome["user"],
        json!({"id": "ann", "name": "ann", "info": {"colour": "red"}})
    );
    assert_eq!(ann.welcome["expires"], claims["exp"]);
    ann.join("lobby").await;
    let refused = ann.ask(json!({"type": "chat", "room": "lobby", "content": 1})).await;
    assert_eq!(refused["code"], "forbidden", "its grants are those of the token");
    for _ in 0..2 {
        is_used(&with(&node, &ticket)).await;
    }
    node.metric_reaches("conclave_admitted_total", &[("place", "ticket")], 1.0)
        .await;
    let metrics = node.metrics().await;
    let count = |result| metrics.sum("conclave_tickets_total", &[("result", result)]);
    assert_eq!((count("issued"), count("redeemed"), count("refused")), (1.0, 1.0, 2.0));
    assert_eq!(metrics.sum("conclave_admitted_total", &[("place", "query")]), 0.0);
    let log = node.process.seen().stdout.join("\n");
    assert!(
        !log.contains(&ticket) && !log.contains(&ticket[2..]),
        "it is in the log"
    );
}

#[tokio::test]
async fn each_ticket_is_another_and_each_connection_needs_one() {
    let node = harness::node().start().await;
    let claims = token::claims("ann");
    let tickets = join_all((0..20).map(|_| ticket_of(&node, &claims))).await;
    assert_eq!(tickets.iter().collect::<HashSet<_>>().len(), 20);
    let clients = join_all(
        tickets
            .iter()
            .map(|ticket| async { with(&node, ticket).open().await.welcomed().await }),
    );
    assert_eq!(clients.await.len(), 20);
}

#[tokio::test]
async fn what_is_no_ticket_of_ours_is_used() {
    let node = harness::node().start().await;
    let good = ticket_of(&node, &token::claims("ann")).await;
    let other = format!("{}A", &good[..44]);
    let tail = if other == good { "B" } else { "A" };
    for bad in [
        "t_",
        "t_short",
        &"t_".repeat(23)[..45],
        &format!("{}{tail}", &good[..44]),
        &format!("{good}A"),
        &good.to_lowercase(),
        &format!("t_{}", "A".repeat(8_000)),
        "t_%00",
        "t_*",
        "t_..%2f..%2f",
    ] {
        is_used(&with(&node, bad)).await;
    }
    // A good token elsewhere does not rescue it.
    is_used(&with(&node, "t_x").bearer(&node.token("ann"))).await;
    with(&node, &good).open().await.welcomed().await;
}

#[tokio::test]
async fn it_is_for_the_page_that_asked() {
    let node = harness::node()
        .set("origin.allow", &format!("[\"{ORIGIN}\", \"https://*.example.org\"]"))
        .start()
        .await;
    let claims = token::claims("ann");
    for other in [Some(WILD), Some("https://localhost"), None] {
        let ticket = ticket_of(&node, &claims).await;
        let elsewhere = node.socket().query_token(&ticket).replace("Origin", other);
        is_used(&elsewhere).await;
        is_used(&with(&node, &ticket)).await;
    }
    // Nothing says whose page a native client is, which is as good as any origin of its own.
    let native = given(&post(&node).bearer(&node.token("ann")).answer().await);
    is_used(&with(&node, &native)).await;
    let native = given(&post(&node).bearer(&node.token("ann")).answer().await);
    node.socket().query_token(&native).open().await.welcomed().await;
    // The same origin, written in another way.
    let ticket = ticket_of(&node, &claims).await;
    let shouted = node.socket().query_token(&ticket).origin("HTTPS://APP.example.com:443");
    shouted.open().await.welcomed().await;
}

#[tokio::test]
async fn no_ticket_without_a_good_token_in_a_header_or_a_cookie() {
    let node = harness::node()
        .set("origin.allow", &format!("[\"{ORIGIN}\", \"https://*.example.org\"]"))
        .start()
        .await;
    let good = node.token("ann");
    let ticket = ticket_of(&node, &token::claims("ann")).await;
    let check = async |ask: Ask, status: u16, error: &str| {
        let answer = ask.answer().await;
        assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (status, Some(error)),
            "{ask:?}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert!(!answer.body.contains("t_"), "{answer:?}");
    };
    check(post(&node), 401, "token_missing").await;
    check(post(&node).bearer("bad"), 401, "token_malformed").await;
    check(post(&node).bearer(&ticket), 401, "token_malformed").await;
    let expired = node.token_with(&json!({"sub": "ann", "exp": 5}));
    check(post(&node).bearer(&expired), 401, "token_expired").await;
    check(
        post(&node).bearer(&good).origin("https://evil.example"),
        403,
        "foreign_origin",
    )
    .await;
    check(post(&node).bearer(&good).origin("null"), 403, "foreign_origin").await;
    check(post(&node).cookie(&good), 403, "cookie_origin").await;
    check(post(&node).cookie(&good).origin(WILD), 403, "cookie_origin").await;
    let in_query = |token: &str| node.ask("POST", &format!("/ticket?token={token}")).body("");
    check(in_query(&good).origin(ORIGIN), 400, "token_in_query").await;
    check(in_query(&ticket).origin(ORIGIN), 400, "token_in_query").await;
    for method in ["GET", "PUT", "DELETE"] {
        let ask = node.ask(method, "/ticket").body("").bearer(&good);
        assert_eq!(ask.answer().await.status, 405, "{method}");
    }
    let with_cookie = post(&node).cookie(&good).origin(ORIGIN).answer().await;
    with(&node, &given(&with_cookie)).open().await.welcomed().await;
    let same = post(&node).cookie(&good).origin("https://localhost").answer().await;
    given(&same);
    assert_eq!(same.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_read_the_answer() {
    let node = harness::node()
        .set("origin.allow", &format!("[\"{ORIGIN}\", \"https://*.example.org\"]"))
        .start()
        .await;
    let preflight = |origin: &str| {
        node.ask("OPTIONS", "/ticket")
            .origin(origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization")
    };
    for (origin, credentials) in [(ORIGIN, Some("true")), (WILD, None)] {
        let asked = preflight(origin).answer().await;
        assert_eq!(asked.status, 204, "{asked:?}");
        assert_eq!(asked.header("access-control-allow-methods"), Some("POST"));
        assert!(
            asked
                .header("access-control-allow-headers")
                .unwrap()
                .contains("authorization")
        );
        let answered = post(&node).bearer(&node.token("ann")).origin(origin).answer().await;
        let refused = post(&node).bearer("bad").origin(origin).answer().await;
        for answer in [&asked, &answered, &refused] {
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                credentials,
                "{answer:?}"
            );
            assert!(
                answer
                    .headers
                    .iter()
                    .any(|(name, value)| name == "vary" && value.contains("origin"))
            );
        }
    }
    let foreign = preflight("https://evil.example").answer().await;
    assert_eq!(foreign.status, 403);
    assert_eq!(foreign.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn it_expires() {
    let node = harness::node().set("tickets.lifetime", "1s").start().await;
    let ticket = ticket_of(&node, &token::claims("ann")).await;
    // The one wait of this file that is for a time: there is no event for it.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    is_used(&with(&node, &ticket)).await;
}

#[tokio::test]
async fn a_user_an_address_and_a_node_have_only_so_many() {
    let node = harness::node()
        .set("tickets.per_minute", "3")
        .set("tickets.outstanding", "8")
        .start()
        .await;
    let ask = |sub: &str| post(&node).bearer(&node.token(sub)).origin(ORIGIN);
    for _ in 0..3 {
        given(&ask("ann").answer().await);
    }
    let refused = ask("ann").answer().await;
    assert_eq!(
        (refused.status, body(&refused)["error"].as_str()),
        (429, Some("rate_limited"))
    );
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // Others are not in her bucket; together they come to the bound of the node.
    let mut full = 0;
    for n in 0..7 {
        let answer = ask(&format!("user{n}")).answer().await;
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some());
            full += 1;
        } else {
            given(&answer);
        }
    }
    assert_eq!(full, 2);
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_rate_limited_total", &[("limit", "tickets_per_minute")]),
        1.0
    );
    assert_eq!(
        metrics.sum("conclave_refused_total", &[("limit", "tickets_outstanding")]),
        2.0
    );
    drop(node);

    let node = harness::node().set("tickets.address_per_minute", "2").start().await;
    for sub in ["ann", "bob"] {
        given(&post(&node).bearer(&node.token(sub)).answer().await);
    }
    let refused = post(&node).bearer(&node.token("cy")).answer().await;
    assert_eq!(refused.status, 429);
    let limit = [("limit", "address_tickets_per_minute")];
    assert_eq!(node.metrics().await.sum("conclave_rate_limited_total", &limit), 1.0);
}

#[tokio::test]
async fn an_address_that_is_refused_too_often_is_throttled_here_as_at_the_socket() {
    let node = harness::node()
        .set("auth.refusals_per_second", "1")
        .set("auth.refusals_burst", "3")
        .start()
        .await;
    let statuses = join_all((0..8).map(|_| async { post(&node).bearer("bad").answer().await.status })).await;
    let throttled = statuses.iter().filter(|status| **status == 429).count();
    assert!((3..=5).contains(&throttled), "{statuses:?}");
}

#[tokio::test]
async fn without_tickets_there_is_no_such_page_and_none_is_good() {
    let node = harness::node().set("tickets.enabled", "false").start().await;
    assert_eq!(post(&node).bearer(&node.token("ann")).answer().await.status, 404);
    is_used(&with(&node, &format!("t_{}", "A".repeat(43)))).await;
}

#[tokio::test]
async fn with_query_tokens_off_only_tickets_may_be_in_the_url() {
    let node = harness::node().set("auth.query_token", "false").start().await;
    let token = node.token("ann");
    let malformed = Err((1008, "token_malformed".to_owned()));
    assert_eq!(first(&node.socket().query_token(&token)).await, malformed);
    assert_eq!(
        first(&node.socket().query_token(&token).bearer(&token)).await,
        malformed
    );
    node.socket().bearer(&token).open().await.welcomed().await;
    let ticket = ticket_of(&node, &token::claims("ann")).await;
    with(&node, &ticket).open().await.welcomed().await;
}

#[tokio::test]
async fn who_is_revoked_meanwhile_cannot_use_it() {
    let redis = Redis::start().await;
    let node = on(&redis).start().await;
    let ticket = ticket_of(&node, &token::claims("ann")).await;
    let other = ticket_of(&node, &token::claims("bob")).await;
    let mut ann = node.client("ann").await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"));
    command
        .args(["revoke", "--user", "ann", "--config", "conclave.toml"])
        .current_dir(node.folder());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(ann.closed().await, (1008, "token_revoked".to_owned()));
    assert_eq!(
        first(&with(&node, &ticket)).await,
        Err((1008, "token_revoked".to_owned()))
    );
    with(&node, &other).open().await.welcomed().await;
}

#[tokio::test]
async fn of_all_nodes_one_takes_a_ticket() {
    let redis = Redis::start().await;
    let (a, b) = (on(&redis).start().await, on(&redis).runtime("shared").start().await);
    for round in 0..50 {
        let mut claims = token::claims(&format!("u{round}"));
        claims["rooms"] = json!({"lobby": ["*"]});
        let ticket = ticket_of(&a, &claims).await;
        let asks = [
            with(&a, &ticket),
            with(&b, &ticket),
            with(&a, &ticket),
            with(&b, &ticket),
        ];
        let came = join_all(asks.iter().map(first)).await;
        let (won, lost): (Vec<_>, Vec<_>) = came.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 3), "round {round}");
        assert_eq!(won[0].as_ref().unwrap()["user"]["id"], format!("u{round}"));
        for lost in lost {
            assert_eq!(lost, Err((USED.0, USED.1.to_owned())), "round {round}");
        }
    }
    // Nothing that was stored can be used by whoever reads the store.
    let ticket = ticket_of(&a, &token::claims("ann")).await;
    let names = redis.cli(&["KEYS", "*"]).await;
    let names: Vec<String> = redis::from_redis_value(names).unwrap();
    let kept: Vec<&String> = names.iter().filter(|name| name.contains("}t:")).collect();
    assert_eq!(kept.len(), 1, "{names:?}");
    let record = redis.text(&["GET", kept[0]]).await;
    assert!(record.contains("ann") && !kept[0].contains(&ticket[2..]) && !record.contains(&ticket[2..]));
    with(&b, &ticket).open().await.welcomed().await;
}

#[tokio::test]
async fn without_the_backplane_there_is_none_and_none_is_known() {
    let mut redis = Redis::start().await;
    let node = on(&redis).start().await;
    let early = ticket_of(&node, &token::claims("ann")).await;
    redis.kill();
    // The link may take a moment to notice; each of these is answered either way.
    let ask = post(&node).bearer(&node.token("ann")).origin(ORIGIN);
    let refused = ask.answer().await;
    assert_eq!(
        (refused.status, body(&refused)["error"].as_str()),
        (503, Some("unavailable")),
        "{refused:?}"
    );
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let mut client = with(&node, &early).open().await;
    let closing = client.expect("closing").await;
    assert_eq!(closing["reason"], "overloaded");
    assert!(closing["reconnect_after_ms"].as_u64().unwrap() > 0);
    client.expect_close(1013, "overloaded").await;
    // Who brings a token is still let in.
    node.client("bob").await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_tickets_total", &[("result", "unavailable")]), 2.0);

    redis.restart().await;
    let ticket = harness::within("a ticket", async {
        loop {
            let answer = ask.answer().await;
            match answer.status {
                200 => return given(&answer),
                503 => {}
                _ => panic!("{answer:?}"),
            }
        }
    })
    .await;
    with(&node, &ticket).open().await.welcomed().await;
}

#[tokio::test]
async fn who_waits_for_the_backplane_is_one_of_a_bounded_number_and_not_for_long() {
    let redis = Redis::start().await;
    let node = on(&redis)
        .set("limits.admissions_waiting", "3")
        .set("limits.admission_time", "1s")
        .set("backplane.call_timeout", "2500ms")
        .start()
        .await;
    let tickets = join_all((0..6).map(|n| {
        let node = &node;
        async move { ticket_of(node, &token::claims(&format!("u{n}"))).await }
    }))
    .await;
    redis.freeze();
    let asks: Vec<Ask> = tickets.iter().map(|ticket| with(&node, ticket)).collect();
    let came = join_all(asks.iter().map(first)).await;
    for one in came {
        assert_eq!(one, Err((1013, "overloaded".to_owned())));
    }
    let metrics = node.metrics().await;
    let full = metrics.sum("conclave_refused_total", &[("limit", "admissions_waiting")]);
    let late = metrics.sum("conclave_admission_refused_total", &[("reason", "unanswered")]);
    assert!(late >= 3.0 && full + late == 6.0, "{full} {late}");
    redis.thaw();
}

#[tokio::test]
async fn a_session_that_came_by_a_ticket_ends_with_its_token() {
    let node = harness::node().set("auth.leeway", "0s").start().await;
    let mut claims = token::claims("ann");
    claims["exp"] = json!(token::now() + 3);
    let ticket = ticket_of(&node, &claims).await;
    let mut ann: Client = with(&node, &ticket).open().await.welcomed().await;
    assert_eq!(ann.closed().await, (1008, "token_expired".to_owned()));
}
