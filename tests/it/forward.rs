//! Sessions of the application (`auth.forward`): who has no token is whoever the application says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::harness::backend::{Asked, Backend, endless, status};
use crate::harness::node::ORIGIN;
use crate::harness::tls::Certificate;
use crate::harness::{self, Ask, Builder, Frame, Node, Redis, token};

const MISSING: (u16, &str) = (1008, "token_missing");
const OVERLOADED: (u16, &str) = (1013, "overloaded");

fn node_of(backend: &Backend) -> Builder {
    harness::node()
        .set("auth.forward.url", &format!("{}/whoami", backend.url))
        // Nothing in the tests is about patience but what says so.
        .set("auth.forward.timeout", "20s")
        .set("limits.admission_time", "30s")
}

/// A page of `ORIGIN` with the application's session cookie.
fn page(node: &Node, sid: &str) -> Ask {
    node.socket().header("Cookie", &format!("sid={sid}")).origin(ORIGIN)
}

/// 200 with JSON, as an application says it.
fn says(answer: &Value) -> Response<Body> {
    says_text(answer.to_string())
}

fn says_text(answer: impl Into<Body>) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .body(answer.into())
        .unwrap()
}

/// An application whose sessions are `sid=NAME`; `sid=out` and none are signed out.
fn knows(backend: &Backend) {
    backend.answers(|asked: Asked| async move {
        let cookie = asked
            .headers
            .get("cookie")
            .map_or("", |cookie| cookie.to_str().unwrap_or(""));
        let sid = cookie.split("; ").find_map(|pair| pair.strip_prefix("sid="));
        match sid {
            Some(name) if name != "out" => says(&json!({"sub": name, "name": name, "expires_in": 3600})),
            _ => status(401),
        }
    });
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
                    Some("closing") => assert!(message["reconnect_after_ms"].as_u64().unwrap() > 0),
                    _ => panic!("{message}"),
                }
            }
            Some(Frame::Close(code, reason)) => return Err((code, reason)),
            other => panic!("{other:?}"),
        }
    }
}

async fn is_turned_away(ask: &Ask, with: (u16, &str)) {
    assert_eq!(first(ask).await, Err((with.0, with.1.to_owned())), "{ask:?}");
}

async fn count(node: &Node, result: &str) -> f64 {
    let metrics = node.metrics().await;
    metrics.sum("conclave_forward_requests_total", &[("result", result)])
}

#[tokio::test]
async fn the_application_says_who_it_is() {
    let backend = Backend::start().await;
    let node = node_of(&backend).set("auth.forward.user_prefix", "shop:").start().await;
    backend.answers(|_| async {
        says(&json!({
            "sub": 7, "name": "Ann", "info": {"colour": "red"}, "rooms": {"lobby": ["join", "list"]},
            "expires_in": 600, "aud": "else", "iss": "else", "more": [1, 2],
        }))
    });
    let ask = page(&node, "s3cret")
        .header("Cookie", "conclave=; other=1")
        .header("User-Agent", "browser")
        .header("X-Private", "mine")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let mut ann = ask.open().await.welcomed().await;
    assert_eq!(
        ann.welcome["user"],
        json!({"id": "shop:7", "name": "Ann", "info": {"colour": "red"}})
    );
    let left = ann.welcome["expires"].as_u64().unwrap() - token::now();
    assert!((500..=600).contains(&left), "{left}");
    ann.join("lobby").await;
    let refused = ann.ask(json!({"type": "chat", "room": "lobby", "content": 1})).await;
    assert_eq!(refused["code"], "forbidden");
    node.metric_reaches("conclave_admitted_total", &[("place", "forward")], 1.0)
        .await;

    let asked = &backend.asked()[0];
    assert_eq!((asked.path.as_str(), asked.body.len()), ("/whoami", 0));
    assert_eq!(asked.header("cookie"), "sid=s3cret; conclave=; other=1");
    assert_eq!(asked.header("x-conclave-origin"), ORIGIN);
    assert_eq!(asked.header("accept"), "application/json");
    assert!(asked.header("traceparent").contains("0af7651916cd43dd8448eb211c80319c"));
    let mut names: Vec<&str> = asked.headers.keys().map(axum::http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "cookie",
            "host",
            "traceparent",
            "user-agent",
            "x-conclave-origin"
        ],
        "nothing else goes along"
    );
    assert!(asked.header("user-agent").starts_with("conclave/"));
    let log = node.process.seen().stdout.join("\n");
    assert!(!log.contains("s3cret"), "the session is in the log");
}

#[tokio::test]
async fn it_is_asked_only_about_those_who_show_no_token_and_something_of_its_own() {
    let backend = Backend::start().await;
    knows(&backend);
    let node = node_of(&backend)
        .set("auth.forward.cookies", "[\"sid\", \"sid.sig\"]")
        .start()
        .await;
    // Nothing of the application's.
    is_turned_away(&node.socket(), MISSING).await;
    is_turned_away(
        &node.socket().header("Cookie", "other=1; SID=2; sid2=3").origin(ORIGIN),
        MISSING,
    )
    .await;
    is_turned_away(&node.socket().header("X-Session", "ann").origin(ORIGIN), MISSING).await;
    // A bad token in any place is never rescued.
    let bad = (1008, "token_malformed");
    is_turned_away(&page(&node, "ann").query_token("bad"), bad).await;
    is_turned_away(&page(&node, "ann").bearer("bad"), bad).await;
    is_turned_away(&page(&node, "ann").cookie("bad"), bad).await;
    is_turned_away(&page(&node, "ann").cookie(""), bad).await;
    is_turned_away(&page(&node, "ann").query_token("t_bad"), (1008, "ticket_used")).await;
    let expired = node.token_with(&json!({"sub": "ann", "exp": 5}));
    is_turned_away(&page(&node, "ann").bearer(&expired), (1008, "token_expired")).await;
    // The cookie rule.
    let cookie = || node.socket().header("Cookie", "sid=ann");
    is_turned_away(&cookie(), (1008, "cookie_origin")).await;
    assert_eq!(
        cookie()
            .origin("https://evil.example")
            .try_open()
            .await
            .err()
            .unwrap()
            .status,
        403
    );
    assert_eq!(backend.asked().len(), 0, "and nobody was asked");
    // A good token needs nobody.
    let welcome = first(&page(&node, "ann").bearer(&node.token("bob"))).await.unwrap();
    assert_eq!(welcome["user"]["id"], "bob");
    assert_eq!(backend.asked().len(), 0);
    for origin in [ORIGIN, "https://localhost"] {
        let welcome = first(&cookie().origin(origin)).await.unwrap();
        assert_eq!(welcome["user"]["id"], "ann");
    }
    is_turned_away(&page(&node, "out"), MISSING).await;
    assert_eq!(backend.asked().len(), 3);
    assert_eq!(backend.asked()[0].header("cookie"), "sid=ann");
}

#[tokio::test]
async fn a_wildcard_origin_may_not_use_the_session() {
    let backend = Backend::start().await;
    knows(&backend);
    let node = node_of(&backend)
        .set("origin.allow", "[\"https://*.example.org\"]")
        .start()
        .await;
    let ask = node
        .socket()
        .header("Cookie", "sid=ann")
        .origin("https://a.example.org");
    is_turned_away(&ask, (1008, "cookie_origin")).await;
    assert_eq!(backend.asked().len(), 0);
}

#[tokio::test]
async fn chosen_headers_say_who_a_native_client_is() {
    let backend = Backend::start().await;
    backend.answers(|asked: Asked| async move {
        assert!(!asked.headers.contains_key("cookie") && !asked.headers.contains_key("x-conclave-origin"));
        match (asked.header("x-session"), asked.header("authorization")) {
            ("", "Basic YW5uOmI=") => says(&json!({"sub": "basic", "expires_in": 60})),
            (session, "") => says(&json!({"sub": session, "expires_in": 60})),
            _ => status(401),
        }
    });
    let node = node_of(&backend)
        .set("auth.forward.cookies", "[]")
        .set("auth.forward.headers", "[\"X-Session\", \"Authorization\"]")
        .start()
        .await;
    let who = async |ask: Ask| first(&ask).await.unwrap()["user"]["id"].clone();
    assert_eq!(who(node.socket().header("X-Session", "ann")).await, "ann");
    assert_eq!(
        who(node.socket().header("Authorization", "Basic YW5uOmI=")).await,
        "basic"
    );
    is_turned_away(&node.socket().header("Cookie", "sid=ann").origin(ORIGIN), MISSING).await;
    assert_eq!(backend.asked().len(), 2);
}

#[tokio::test]
async fn hostile_cookies_reach_the_application_as_one_header_and_nothing_else() {
    let backend = Backend::start().await;
    backend.answers(|_| async { status(401) });
    let node = node_of(&backend).start().await;
    let long = format!("sid={}", "x".repeat(20_000));
    for cookie in [
        "sid=a\tb; x=\"quoted; y=\"",
        "sid=a%0d%0aX-Admin: 1; b=c",
        "sid=a, b=c, X-Admin: 1",
        "sid=ann; sid=bob",
        "$Version=1; sid=\\\"; path=/",
        long.as_str(),
    ] {
        is_turned_away(&node.socket().header("Cookie", cookie).origin(ORIGIN), MISSING).await;
    }
    // Bytes that are no ASCII, written by hand.
    let mut bytes = page(&node, "MARK").bytes();
    let at = bytes.windows(4).position(|four| four == b"MARK").unwrap();
    bytes.splice(at..at + 4, [0xff, 0xc3, 0xa9, 0x80]);
    let mut stream = node.tls().connect().await;
    stream.write_all(&bytes).await.unwrap();
    let (answer, _) = harness::request::read_head(&mut stream).await;
    assert_eq!(answer.status, 101);
    let asked = backend.asked_times(7).await;
    for asked in &asked {
        assert!(!asked.headers.contains_key("x-admin"));
        assert_eq!(asked.headers.get_all("cookie").iter().count(), 1);
    }
    assert_eq!(asked[3].header("cookie"), "sid=ann; sid=bob");
    assert_eq!(asked[6].headers["cookie"].as_bytes(), b"sid=\xff\xc3\xa9\x80");
    // What could split a header is refused before anybody looks at it.
    for bad in ["sid=a\rX-Admin: 1", "sid=a\nX-Admin: 1", "sid=a\0b"] {
        let mut stream = node.tls().connect().await;
        let ask = node.socket().header("Cookie", bad).origin(ORIGIN);
        stream.write_all(&ask.bytes()).await.unwrap();
        let (answer, _) = harness::request::read_head(&mut stream).await;
        assert!(answer.status == 400 || answer.status == 101, "{bad:?}: {answer:?}");
    }
    for asked in backend.asked() {
        assert!(
            asked
                .header_bytes("cookie")
                .iter()
                .all(|byte| !b"\r\n\0".contains(byte))
        );
    }
}

#[tokio::test]
async fn whatever_is_no_answer_turns_away_with_1013_and_says_why_to_the_operator() {
    let backend = Backend::start().await;
    let node = node_of(&backend).start().await;
    let answers: Vec<(&str, fn() -> Response<Body>)> = vec![
        ("status", || status(500)),
        ("status", || status(404)),
        ("status", || status(204)),
        ("status", || {
            Response::builder()
                .status(302)
                .header("location", "/login")
                .body(Body::empty())
                .unwrap()
        }),
        ("malformed", || {
            Response::new(Body::from(r#"{"sub":"a","expires_in":60}"#))
        }),
        ("malformed", || {
            Response::builder()
                .header("content-type", "text/html")
                .body(Body::from("<form>"))
                .unwrap()
        }),
        ("malformed", || {
            Response::builder()
                .header("content-type", "application/json")
                .header("content-encoding", "gzip")
                .body(Body::from(r#"{"sub":"a","expires_in":60}"#))
                .unwrap()
        }),
        ("malformed", || says_text("")),
        ("malformed", || says_text("[]")),
        ("malformed", || {
            says_text("{\"sub\":\"a\",\"sub\":\"b\",\"expires_in\":1}")
        }),
        ("malformed", || says(&json!({"name": "nobody", "expires_in": 60}))),
        ("malformed", || says(&json!({"sub": "a"}))),
        ("malformed", || says(&json!({"sub": "a", "expires_in": "60"}))),
        ("malformed", || says(&json!({"sub": "a\n", "expires_in": 60}))),
        ("malformed", || says(&json!({"sub": "a", "expires_in": 60, "rooms": 7}))),
        ("malformed", || {
            says_text(format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)))
        }),
        ("too_large", || says_text(" ".repeat(64 * 1024 + 1))),
        ("too_large", || {
            let mut endless = endless(Duration::ZERO);
            endless
                .headers_mut()
                .insert("content-type", "application/json".parse().unwrap());
            endless
        }),
    ];
    for (_, answer) in &answers {
        let answer = *answer;
        backend.answers(move |_| async move { answer() });
        is_turned_away(&page(&node, "ann"), OVERLOADED).await;
    }
    for result in ["status", "malformed", "too_large"] {
        let expected = answers.iter().filter(|(kind, _)| *kind == result).count();
        assert_eq!(count(&node, result).await, expected as f64, "{result}");
    }
    node.logged("a warning", |line| {
        line["level"] == "WARN"
            && line["message"]
                .as_str()
                .is_some_and(|text| text.contains("not an answer"))
    })
    .await;
    // None of that is the application's end: whoever it knows comes in, and the others were never touched.
    knows(&backend);
    assert!(first(&page(&node, "ann")).await.is_ok());
    assert_eq!(count(&node, "circuit_open").await, 0.0);
    assert_eq!(
        backend.asked().len(),
        answers.len() + 1,
        "each was asked once, and no redirect was followed"
    );
}

#[tokio::test]
async fn a_session_that_is_over_or_too_long_is_told_so() {
    let backend = Backend::start().await;
    let node = node_of(&backend)
        .set("auth.forward.lifetime_max", "60s")
        .set("auth.leeway", "0s")
        .start()
        .await;
    let exp = |ahead: i64| token::now().checked_add_signed(ahead).unwrap();
    let over = json!({"sub": "ann", "exp": exp(-10)});
    backend.answers(move |_| std::future::ready(says(&over)));
    is_turned_away(&page(&node, "ann"), (1008, "token_expired")).await;
    let long = json!({"sub": "ann", "exp": exp(100_000)});
    backend.answers(move |_| std::future::ready(says(&long)));
    let welcome = first(&page(&node, "ann")).await.unwrap();
    assert!(welcome["expires"].as_u64().unwrap() <= token::now() + 60);
    backend.answers(|_| async { says(&json!({"sub": "ann", "expires_in": 3})) });
    let mut ann = page(&node, "ann").open().await.welcomed().await;
    assert_eq!(ann.closed().await, (1008, "token_expired".to_owned()));
}

#[tokio::test]
async fn a_forward_session_is_renewed_only_by_a_good_token_of_its_user() {
    let backend = Backend::start().await;
    knows(&backend);
    let node = node_of(&backend).start().await;
    let mut ann = page(&node, "ann").open().await.welcomed().await;
    let refused = ann.ask(json!({"type": "auth", "token": node.token("bob")})).await;
    assert_eq!(refused["code"], "forbidden");
    let refused = ann.ask(json!({"type": "auth", "token": "sid=ann"})).await;
    assert_eq!(refused["reason"], "token_malformed");
    let ok = ann.ask(json!({"type": "auth", "token": node.token("ann")})).await;
    assert_eq!(ok["type"], "ok");
}

#[tokio::test]
async fn a_session_gets_a_ticket() {
    let backend = Backend::start().await;
    knows(&backend);
    let node = node_of(&backend).start().await;
    let post = |sid: &str| {
        let ask = node.ask("POST", "/ticket").body("");
        ask.header("Cookie", &format!("sid={sid}")).origin(ORIGIN)
    };
    let answer = post("ann").answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let ticket: Value = serde_json::from_str(&answer.body).unwrap();
    let ticket = ticket["ticket"].as_str().unwrap();
    let ask = node.socket().query_token(ticket).origin(ORIGIN);
    assert_eq!(first(&ask).await.unwrap()["user"]["id"], "ann");
    assert_eq!(post("out").answer().await.status, 401);
    backend.answers(|_| async { status(500) });
    let unavailable = post("ann").answer().await;
    assert_eq!(unavailable.status, 503);
    assert!(unavailable.header("retry-after").is_some());
}

#[tokio::test]
async fn one_that_is_down_is_left_alone_and_found_again() {
    let backend = Backend::start().await;
    knows(&backend);
    let node = node_of(&backend)
        .set("auth.forward.failures", "3")
        .set("auth.forward.pause", "1s")
        .start()
        .await;
    let mut old = page(&node, "old").open().await.welcomed().await;
    backend.answers(|_| async { status(503) });
    for _ in 0..3 {
        is_turned_away(&page(&node, "ann"), OVERLOADED).await;
    }
    node.metric_reaches("conclave_forward_circuit_open", &[], 1.0).await;
    let asked = backend.asked().len();
    // Others are unharmed: those who are here, and those who bring a token.
    old.join("lobby").await;
    old.chat("lobby", "still here").await;
    node.client("bob").await.join("lobby").await;
    // Not everybody is asked about while it is open; how many are hangs on how long this takes.
    let came = join_all((0..20).map(|_| async { first(&page(&node, "ann")).await }));
    for came in came.await {
        assert_eq!(came, Err((OVERLOADED.0, OVERLOADED.1.to_owned())));
    }
    assert!(backend.asked().len() <= asked + 10, "it was asked all the same");
    assert!(count(&node, "circuit_open").await >= 10.0);
    knows(&backend);
    harness::within("the application to be found again", async {
        while first(&page(&node, "ann")).await.is_err() {}
    })
    .await;
    node.metric_reaches("conclave_forward_circuit_open", &[], 0.0).await;
    node.logged("its return", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("answers again"))
    })
    .await;
}

#[tokio::test]
async fn what_one_client_can_cause_never_shuts_the_others_out() {
    let backend = Backend::start().await;
    let node = node_of(&backend).set("auth.forward.failures", "2").start().await;
    for answer in [500, 302, 400, 431, 401] {
        backend.answers(move |_| async move { status(answer) });
        for _ in 0..3 {
            assert!(first(&page(&node, "mallory")).await.is_err());
        }
    }
    backend.answers(|_| async { says(&json!({"sub": "x".repeat(300), "expires_in": 60})) });
    for _ in 0..3 {
        is_turned_away(&page(&node, "mallory"), OVERLOADED).await;
    }
    knows(&backend);
    assert!(first(&page(&node, "ann")).await.is_ok());
    assert_eq!(count(&node, "circuit_open").await, 0.0);
}

#[tokio::test]
async fn one_that_is_slow_is_not_waited_for() {
    let backend = Backend::start().await;
    let node = node_of(&backend)
        .set("auth.forward.timeout", "300ms")
        .set("auth.forward.failures", "1000")
        .start()
        .await;
    backend.hangs();
    let came = join_all((0..10).map(|_| async { first(&page(&node, "ann")).await }));
    for came in came.await {
        assert_eq!(came, Err((OVERLOADED.0, OVERLOADED.1.to_owned())));
    }
    // A body that trickles is no better.
    backend.answers(|_| async { endless(Duration::from_millis(50)) });
    is_turned_away(&page(&node, "ann"), OVERLOADED).await;
    assert_eq!(count(&node, "timeout").await, 11.0);
}

#[tokio::test]
async fn nobody_there_and_nobody_who_should_be_there() {
    let certificate = Certificate::new();
    let backend = Backend::start_tls(&certificate).await;
    knows(&backend);
    // Another authority than the one that is trusted.
    let node = node_of(&backend)
        .file("other.crt", Certificate::new().pem)
        .set("auth.forward.ca_file", "other.crt")
        .start()
        .await;
    is_turned_away(&page(&node, "ann"), OVERLOADED).await;
    assert_eq!(count(&node, "tls").await, 1.0);
    drop(node);
    let node = node_of(&backend)
        .file("own.crt", certificate.pem.clone())
        .set("auth.forward.ca_file", "own.crt")
        .start()
        .await;
    assert!(first(&page(&node, "ann")).await.is_ok());
    assert_eq!(backend.asked().last().unwrap().version, axum::http::Version::HTTP_2);
    drop(node);
    let port = harness::ports::Port::free();
    let node = harness::node()
        .set("auth.forward.url", &format!("http://127.0.0.1:{}/whoami", port.number))
        .start()
        .await;
    is_turned_away(&page(&node, "ann"), OVERLOADED).await;
    assert_eq!(count(&node, "connect").await, 1.0);
    node.client("bob").await;
}

#[tokio::test]
async fn so_many_questions_at_a_time_and_no_more() {
    let backend = Backend::start().await;
    let (gate, most, now) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (opened, highest) = (Arc::clone(&gate), Arc::clone(&most));
    backend.answers(move |_| {
        let (gate, most, now) = (Arc::clone(&gate), Arc::clone(&most), Arc::clone(&now));
        async move {
            most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
            gate.acquire().await.unwrap().forget();
            now.fetch_sub(1, Relaxed);
            says(&json!({"sub": "ann", "expires_in": 60}))
        }
    });
    let node = node_of(&backend).set("auth.forward.in_flight", "3").start().await;
    let asks: Vec<Ask> = (0..9).map(|_| page(&node, "ann")).collect();
    let come = join_all(asks.iter().map(first));
    let open = async {
        backend.asked_times(3).await;
        // Others come in meanwhile.
        node.client("bob").await;
        assert_eq!(backend.asked().len(), 3);
        opened.add_permits(9);
    };
    let (came, ()) = tokio::join!(come, open);
    assert!(came.iter().all(Result::is_ok), "{came:?}");
    assert_eq!((highest.load(Relaxed), backend.asked().len()), (3, 9));
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_turn_to_the_next() {
    let backend = Backend::start().await;
    let node = node_of(&backend).set("auth.forward.in_flight", "1").start().await;
    backend.hangs();
    // The request is there, the answer is not, and the client goes: its question ends with it.
    for n in 1..=3 {
        let mut stream = node.tls().connect().await;
        stream.write_all(&page(&node, "gone").bytes()).await.unwrap();
        backend.asked_times(n).await;
        drop(stream);
    }
    knows(&backend);
    assert!(first(&page(&node, "ann")).await.is_ok());
}

#[tokio::test]
async fn a_good_answer_counts_again_for_a_while_and_a_bad_one_never() {
    let backend = Backend::start().await;
    knows(&backend);
    let redis = Redis::start().await;
    let node = node_of(&backend)
        .set("auth.forward.cache", "10m")
        .set("backplane.kind", "redis")
        .set("backplane.url", &redis.url())
        .start()
        .await;
    for _ in 0..5 {
        assert!(first(&page(&node, "ann")).await.is_ok());
    }
    assert_eq!(backend.asked().len(), 1);
    assert_eq!(node.metrics().await.sum("conclave_forward_cache_hits_total", &[]), 4.0);
    // Another cookie, and another page, are other questions.
    assert_eq!(first(&page(&node, "bob")).await.unwrap()["user"]["id"], "bob");
    let same = node.socket().header("Cookie", "sid=ann").origin("https://localhost");
    assert!(first(&same).await.is_ok());
    assert_eq!(backend.asked().len(), 3);
    for _ in 0..2 {
        is_turned_away(&page(&node, "out"), MISSING).await;
    }
    assert_eq!(backend.asked().len(), 5);
    // The application may be away meanwhile.
    backend.answers(|_| async { status(503) });
    assert!(first(&page(&node, "ann")).await.is_ok());
    is_turned_away(&page(&node, "cy"), OVERLOADED).await;
    // And who is revoked is out, whatever was said before.
    let mut ann = page(&node, "ann").open().await.welcomed().await;
    let output = revoke(&node, "ann").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(ann.closed().await, (1008, "token_revoked".to_owned()));
    is_turned_away(&page(&node, "ann"), (1008, "token_revoked")).await;
}

async fn revoke(node: &Node, user: &str) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conclave"));
    command
        .args(["revoke", "--user", user, "--config", "conclave.toml"])
        .current_dir(node.folder());
    let output = tokio::task::spawn_blocking(move || command.output());
    harness::within("the end of the verb", output)
        .await
        .unwrap()
        .expect("it runs")
}

#[tokio::test]
async fn without_keys_the_application_alone_may_let_people_in() {
    let backend = Backend::start().await;
    knows(&backend);
    let folder_has_no_key = node_of(&backend).no_keys().start().await;
    assert!(first(&page(&folder_has_no_key, "ann")).await.is_ok());
}

#[tokio::test]
async fn what_cannot_work_is_said_at_the_start() {
    let wrong = |change: fn(Builder) -> Builder, part: &'static str| async move {
        let builder = harness::node().set("auth.forward.url", "http://127.0.0.1:1/whoami");
        let (exit, seen) = change(builder).fail().await;
        assert_eq!(exit.code(), Some(64), "{seen:?}");
        assert!(seen.stderr.contains(part), "{part}: {}", seen.stderr);
    };
    wrong(|node| node.set("auth.forward.url", "app/whoami"), "auth.forward.url").await;
    wrong(
        |node| node.set("auth.forward.url", "http://u:hunter2@app/"),
        "auth.forward.url",
    )
    .await;
    wrong(
        |node| node.set("auth.forward.cookies", "[]"),
        "neither a cookie nor a header",
    )
    .await;
    wrong(
        |node| node.set("auth.forward.headers", "[\"Cookie\"]"),
        "auth.forward.headers",
    )
    .await;
    wrong(|node| node.set("origin.allow", "[\"*\"]"), "auth.forward.cookies").await;
    wrong(
        |node| node.set("auth.forward.ca_file", "none.crt"),
        "auth.forward.ca_file",
    )
    .await;
    wrong(
        |node| node.set("auth.forward.cookie", "sid"),
        "did you mean \"cookies\"",
    )
    .await;
}
