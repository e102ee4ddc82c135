use serde_json::json;

use super::{TOKEN, ask, audited, bare, bearer, node};
use crate::harness::{self, within};

const LOCALHOST: &str = "Host: localhost";

/// Everything that is behind the guard.
const GUARDED: [&str; 8] = [
    "/",
    "/admin.js",
    "/admin-view.js",
    "/api/overview",
    "/api/config",
    "/api/drain",
    "/api/tap/0",
    "/nowhere",
];

#[tokio::test]
async fn without_a_token_file_there_are_only_metrics_and_health() {
    let node = harness::node().start().await;
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(
            bare(&node, "GET", path).with("Host: anything").status().await,
            200,
            "{path}"
        );
    }
    for path in ["/api/overview", "/api/drain", "/sign-in", "/admin.js"] {
        assert_eq!(ask(&node, "GET", path).status().await, 404, "{path}");
    }
    assert_eq!(
        ask(&node, "POST", "/api/kick")
            .json(json!({"user": "a"}))
            .status()
            .await,
        404
    );
}

#[tokio::test]
async fn who_has_no_token_gets_nothing() {
    let node = node().start().await;
    for path in GUARDED {
        let none = bare(&node, "GET", path).with(LOCALHOST).answer().await;
        assert_eq!(none.status, 401, "{path}");
        assert!(
            none.header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        assert_eq!(none.header("cache-control"), Some("no-store"));
        assert_eq!(none.header("access-control-allow-origin"), None);
    }
    let refused = [
        bearer(&TOKEN[..TOKEN.len() - 1]),
        bearer(&format!("{TOKEN}x")),
        bearer(""),
        format!("Authorization: Basic {TOKEN}"),
        format!("Cookie: conclave_admin_{}={TOKEN}", node.admin.port()),
        format!("Cookie: conclave_admin={TOKEN}"),
    ];
    for header in &refused {
        let status = bare(&node, "GET", "/api/overview")
            .with(LOCALHOST)
            .with(header)
            .status()
            .await;
        assert_eq!(status, 401, "{header}");
    }
    let query = format!("/api/overview?token={TOKEN}");
    assert_eq!(bare(&node, "GET", &query).with(LOCALHOST).status().await, 401);
    for path in GUARDED.iter().filter(|path| !["/nowhere", "/api/tap/0"].contains(path)) {
        assert_eq!(ask(&node, "GET", path).status().await, 200, "{path}");
    }
    assert_eq!(ask(&node, "GET", "/nowhere").status().await, 404);
    // Health and metrics are for everybody all the same.
    assert_eq!(
        bare(&node, "GET", "/metrics").with("Host: evil.example").status().await,
        200
    );
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let node = node().set("admin.hosts", "[\"node-1.internal\"]").start().await;
    let status = |host: &str| {
        let ask = bare(&node, "GET", "/api/overview")
            .with(&bearer(TOKEN))
            .with(&format!("Host: {host}"));
        ask.status()
    };
    for host in ["localhost", "127.0.0.1:80", "[::1]:9464", "node-1.internal:9464"] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:9464",
        "10.0.0.1",
        "node-2.internal",
    ] {
        assert_eq!(status(host).await, 403, "{host}");
    }
    let none = bare(&node, "GET", "/api/overview").with(&bearer(TOKEN));
    assert!([400, 403].contains(&none.status().await));
    let two = bare(&node, "GET", "/api/overview")
        .with(&bearer(TOKEN))
        .with(LOCALHOST)
        .with("Host: evil.example");
    assert!([400, 403].contains(&two.status().await));
}

#[tokio::test]
async fn a_change_needs_the_header_and_comes_from_no_other_page() {
    let node = node().start().await;
    let mut ann = node.client("ann").await;
    let kick = |headers: &[&str]| {
        let ask = bare(&node, "POST", "/api/kick").with(LOCALHOST).with(&bearer(TOKEN));
        let ask = headers.iter().fold(ask, |ask, header| ask.with(header));
        ask.json(json!({"user": "ann"})).status()
    };
    assert_eq!(kick(&[]).await, 403);
    assert_eq!(kick(&["conclave-admin: yes"]).await, 403);
    for from in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost:3000",
        "Sec-Fetch-Site: same-site",
    ] {
        assert_eq!(kick(&["conclave-admin: 1", from]).await, 403, "{from}");
    }
    // Browsers ask before they send such a header across origins; nobody says yes.
    let asks = bare(&node, "OPTIONS", "/api/kick")
        .with(LOCALHOST)
        .with("Origin: https://evil.example");
    let answer = asks.with("Access-Control-Request-Method: POST").answer().await;
    assert!(answer.status >= 400 && answer.header("access-control-allow-origin").is_none());
    // Nothing of it was done.
    assert_eq!(ann.ask(json!({"type": "ping"})).await["type"], "pong");
    assert_eq!(kick(&["conclave-admin: 1", "Origin: http://localhost"]).await, 200);
    ann.expect_close(1008, "kicked").await;
}

#[tokio::test]
async fn guesses_are_limited_and_nobody_is_locked_out_for_long() {
    let node = node().start().await;
    let form = "application/x-www-form-urlencoded";
    let sign_in = bare(&node, "POST", "/sign-in")
        .with(LOCALHOST)
        .body(form, &format!("token={TOKEN}"));
    let cookie = sign_in.answer().await.header("set-cookie").unwrap().to_owned();
    let mut statuses = Vec::new();
    for guess in 0..60 {
        let guess = bearer(&format!("guess-{guess}-of-many-that-are-all-wrong"));
        let answer = bare(&node, "GET", "/api/overview")
            .with(LOCALHOST)
            .with(&guess)
            .answer()
            .await;
        if answer.status == 429 {
            assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
        }
        statuses.push(answer.status);
    }
    assert!(
        statuses.iter().all(|status| [401, 429].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&429), "{statuses:?}");
    let form_too = bare(&node, "POST", "/sign-in")
        .with(LOCALHOST)
        .body(form, "token=guess");
    assert!([401, 429].contains(&form_too.status().await));
    // Who is signed in goes on, and a good token is good again soon.
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(
        bare(&node, "GET", "/").with(LOCALHOST).with(&cookie).status().await,
        200
    );
    within("a good token to be looked at", async {
        while ask(&node, "GET", "/api/config").status().await != 200 {}
    })
    .await;
    audited(&node, "bearer", "bad token").await;
    let log = format!("{:?}", node.log());
    assert!(
        !log.contains("guess-") && !log.contains("canary7Kq"),
        "a guess is in the log"
    );
    let metrics = node.metrics().await;
    let throttled = [("action", "overview"), ("result", "throttled")];
    assert!(metrics.sum("conclave_admin_requests_total", &throttled) > 0.0);
}

#[tokio::test]
async fn the_cookie_is_out_of_reach_of_scripts_and_ends_with_the_sign_out_or_the_node() {
    let node = node().set("admin.session_ttl", "90m").start().await;
    let form = |node, from: &str| {
        let ask = bare(node, "POST", "/sign-in").with(LOCALHOST).with(from);
        ask.body("application/x-www-form-urlencoded", &format!("token={TOKEN}"))
            .answer()
    };
    let stranger = form(&node, "Origin: https://evil.example").await;
    assert_eq!((stranger.status, stranger.header("set-cookie")), (403, None));
    let answer = form(&node, "Origin: http://localhost").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    let set = answer.header("set-cookie").unwrap().to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=5400"] {
        assert!(set.split("; ").any(|part| part == word), "{set}");
    }
    let cookie = format!("Cookie: {}", set.split(';').next().unwrap());
    let visit = || {
        bare(&node, "GET", "/api/overview")
            .with(LOCALHOST)
            .with(&cookie)
            .status()
    };
    assert_eq!(visit().await, 200);
    let out = |header: &str| {
        bare(&node, "POST", "/sign-out")
            .with(LOCALHOST)
            .with(&cookie)
            .with(header)
            .status()
    };
    assert_eq!(out("x: y").await, 403);
    assert_eq!(visit().await, 200);
    assert_eq!(out("conclave-admin: 1").await, 204);
    assert_eq!(visit().await, 401);
    let signed = audited(&node, "sign_in", "ok").await;
    assert_eq!(
        (signed["who"].as_str(), signed["address"].as_str()),
        (Some("ann"), Some("127.0.0.1"))
    );
}

#[tokio::test]
async fn a_token_file_that_is_no_good_keeps_the_node_from_starting() {
    for (content, what) in [
        ("short\n", "too short"),
        ("", "no token"),
        ("a b c\n", "more than a name"),
    ] {
        let (exit, seen) = harness::node()
            .file("tokens", content)
            .set("admin.token_file", "tokens")
            .fail()
            .await;
        assert_eq!(exit.code(), Some(64), "{content}");
        assert!(
            seen.stderr.contains(what) && seen.stderr.contains("admin.token_file"),
            "{}",
            seen.stderr
        );
    }
}

#[tokio::test]
async fn no_answer_says_a_secret_of_the_configuration() {
    const SECRET: &str = "canary7Kq is a secret of more than thirty-two bytes";
    let node = node()
        .set("session.enabled", "true")
        .set("session.secret", SECRET)
        .set("backplane.url", "redis://user:canary7Kq@127.0.0.1:1")
        .set("traces.headers", "[\"authorization=canary7Kq\"]")
        .key(&format!("algorithm = \"HS256\"\nsecret = \"{SECRET}\"\nkid = \"two\""))
        .start()
        .await;
    let config = ask(&node, "GET", "/api/config").good().await;
    let row = |key: &str| {
        let rows = config.as_array().unwrap();
        rows.iter()
            .find(|row| row["key"] == key)
            .unwrap_or_else(|| panic!("{key} is not shown"))
            .clone()
    };
    for key in ["session.secret", "backplane.url", "auth.keys[1].secret"] {
        assert_eq!(row(key)["value"], "***", "{key}");
    }
    assert_eq!(row("traces.headers")["value"], "authorization=***");
    assert_eq!(row("admin.token_file")["value"], "tokens");
    assert!(
        row("server.listen")["source"]
            .as_str()
            .unwrap()
            .starts_with("conclave.toml:")
    );
    assert_eq!(row("heartbeat.interval")["source"], "default");
    // `Ask::answer` looks for the canary in each of these.
    for path in ["/", "/api/overview", "/api/drain", "/metrics", "/sign-in", "/admin.css"] {
        assert_eq!(ask(&node, "GET", path).status().await, 200, "{path}");
    }
    assert_eq!(
        ask(&node, "POST", "/api/kick").json(json!({"user": 1})).status().await,
        400
    );
    assert!(!format!("{:?}", node.log()).contains("canary7Kq"));
}
