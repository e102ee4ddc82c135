//! Who comes in, and what the others are told (PROTOCOL.md section 1).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::node::ORIGIN;
use crate::harness::token::{self, SECRET, encode, now, sign_text, sign_with};
use crate::harness::{self, Ask};

const ISSUER: &str = "https://id.example.com";

#[tokio::test]
async fn a_good_token_is_welcomed_from_each_place() {
    let node = harness::node().start().await;
    let token = node.token("ann");
    let asks = [
        ("query", node.socket().query_token(&token)),
        ("bearer", node.socket().bearer(&token)),
        (
            "bearer",
            node.socket().header("Authorization", &format!("bEARER   {token}")),
        ),
        ("cookie", node.socket().cookie(&token).origin(ORIGIN)),
        (
            "cookie",
            node.socket()
                .header("Cookie", &format!("a=b; conclave_token=\"{token}\"; c=d"))
                .origin(ORIGIN),
        ),
    ];
    for (place, ask) in asks {
        let client = ask.open().await.welcomed().await;
        assert_eq!(client.welcome["user"], json!({"id": "ann", "name": "ann"}), "{place}");
        assert_eq!(client.welcome["protocol"], 1);
        assert_eq!(client.welcome["kept"], "memory");
        client.close(1000).await;
    }
    for (place, count) in [("query", 1.0), ("bearer", 2.0), ("cookie", 2.0)] {
        node.metric_reaches("conclave_admitted_total", &[("place", place)], count)
            .await;
    }
}

#[tokio::test]
async fn without_a_token_the_socket_is_closed_at_once() {
    let node = harness::node().start().await;
    for ask in [
        node.socket(),
        node.socket().header("Authorization", "Basic YTpi"),
        node.socket().cookie_named("other"),
    ] {
        turned_away(&ask, "token_missing").await;
    }
}

#[tokio::test]
async fn bad_tokens_are_told_why_and_nothing_else() {
    let forge = Forge::new();
    let node = forge.node().start().await;
    let bad = forge.bad_tokens();
    assert!(bad.len() >= 30, "{}", bad.len());
    join_all(bad.iter().map(|(name, token, word)| {
        let ask = node.socket().query_token(token);
        async move {
            let mut client = ask.open().await;
            let said = client.closed_first(name).await;
            assert_eq!(said, (1008, (*word).to_owned()), "{name}");
            // The client says nothing; the server does not wait for it for long.
            client.gone().await;
        }
    }))
    .await;
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_upgrades_total", &[("result", "denied")]),
        bad.len() as f64
    );
    assert_eq!(
        metrics.sum("conclave_connections_opened_total", &[]),
        0.0,
        "none of them was a connection"
    );
    let log = node.process.seen().stdout.join("\n");
    for (name, token, _) in bad.iter().filter(|(_, token, _)| token.len() > 20) {
        assert!(!log.contains(token), "{name} is in the log");
    }
    let good = forge.sign(&forge.claims());
    node.socket()
        .query_token(&good)
        .open()
        .await
        .welcomed()
        .await
        .close(1000)
        .await;
    node.socket()
        .query_token(&forge.sign_ec(&forge.claims()))
        .open()
        .await
        .welcomed()
        .await
        .close(1000)
        .await;
}

#[tokio::test]
async fn a_token_twice_in_one_place_is_malformed() {
    let node = harness::node().start().await;
    let token = node.token("ann");
    let asks = [
        node.socket().query_token(&token).query_token(&token),
        node.socket().query_token(&token).query_token(""),
        node.ask("GET", &format!("/ws?token={token}&%74oken={token}")).upgrade(),
        node.socket().bearer(&token).bearer(&token),
        node.socket().bearer(&token).header("Authorization", "Basic YTpi"),
        node.socket().cookie(&token).cookie(&token).origin(ORIGIN),
        node.socket()
            .header("Cookie", &format!("conclave_token={token}; conclave_token="))
            .origin(ORIGIN),
    ];
    join_all(asks.iter().map(|ask| turned_away(ask, "token_malformed"))).await;
}

#[tokio::test]
async fn the_first_place_counts_and_no_other_rescues_it() {
    let node = harness::node().start().await;
    let (ann, bob) = (node.token("ann"), node.token("bob"));
    let expired = node.token_with(&json!({"sub": "old", "exp": now() - 100}));
    let welcomed = [
        ("ann", node.socket().query_token(&ann).bearer(&bob).cookie(&bob)),
        ("ann", node.socket().query_token(&ann).bearer("rubbish")),
        ("bob", node.socket().bearer(&bob).cookie(&ann)),
    ];
    for (user, ask) in welcomed {
        let client = ask.open().await.welcomed().await;
        assert_eq!(client.welcome["user"]["id"], user);
        client.close(1000).await;
    }
    turned_away(
        &node
            .socket()
            .query_token(&expired)
            .bearer(&ann)
            .cookie(&ann)
            .origin(ORIGIN),
        "token_expired",
    )
    .await;
    turned_away(
        &node.socket().bearer("rubbish").cookie(&ann).origin(ORIGIN),
        "token_malformed",
    )
    .await;
    turned_away(&node.socket().query_token("").bearer(&ann), "token_malformed").await;
}

#[tokio::test]
async fn a_cookie_needs_an_origin_that_is_ours_or_named() {
    let node = harness::node()
        .set(
            "origin.allow",
            "[\"https://app.example.com\", \"https://*.wild.example\"]",
        )
        .start()
        .await;
    let token = node.token("ann");
    let host = format!("localhost:{}", node.listen.port());
    let ask = || node.socket().replace("Host", Some(&host)).cookie(&token);
    for good in [format!("https://{host}"), ORIGIN.to_owned()] {
        ask().origin(&good).open().await.welcomed().await.close(1000).await;
    }
    turned_away(&ask(), "cookie_origin").await;
    turned_away(&ask().origin("https://page.wild.example"), "cookie_origin").await;
    // The same page may come in with a token that no browser sends by itself.
    let by_query = node.socket().query_token(&token).origin("https://page.wild.example");
    by_query.open().await.welcomed().await.close(1000).await;
}

#[tokio::test]
async fn foreign_origins_get_403_and_no_upgrade() {
    let node = harness::node()
        .set(
            "origin.allow",
            "[\"https://app.example.com\", \"https://*.wild.example\"]",
        )
        .start()
        .await;
    let token = node.token("ann");
    let foreign = [
        "https://evil.example",
        "null",
        "",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://evil.example/https://app.example.com",
        "https://app.example.com@evil.example",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com/",
        "https://app.example.com evil",
        "https://wild.example",
        "https://a.b.wild.example",
        "https://.wild.example",
        "https://evilwild.example",
        "https://page.wild.example.evil.example",
        "*",
        "https://*.wild.example",
        "app.example.com",
        "https://[::1]",
        // Host agrees, and yet the name is not one of ours.
        "https://rebound.example",
    ];
    for origin in foreign {
        let refused = node
            .socket()
            .replace("Host", Some("rebound.example"))
            .query_token(&token)
            .origin(origin);
        let answer = refused
            .try_open()
            .await
            .err()
            .unwrap_or_else(|| panic!("{origin:?} was upgraded"));
        assert_eq!(answer.status, 403, "{origin:?}");
        assert_eq!(answer.header("sec-websocket-accept"), None);
    }
    let twice = node.socket().query_token(&token).origin(ORIGIN).origin(ORIGIN);
    assert_eq!(
        twice.try_open().await.err().map(|answer| answer.status),
        Some(403),
        "Origin twice"
    );
    let count = foreign.len() as f64 + 1.0;
    node.metric_reaches("conclave_upgrades_total", &[("result", "foreign_origin")], count)
        .await;
    for origin in [
        ORIGIN,
        "HTTPS://APP.example.com",
        "https://app.example.com:443",
        "https://page.wild.example",
    ] {
        node.socket()
            .query_token(&token)
            .origin(origin)
            .open()
            .await
            .welcomed()
            .await
            .close(1000)
            .await;
    }
}

#[tokio::test]
async fn who_is_refused_too_often_gets_429_until_a_good_token_comes() {
    let node = harness::node()
        .set("auth.refusals_per_second", "1")
        .set("auth.refusals_burst", "3")
        .start()
        .await;
    let mut throttled = None;
    // A slow machine may have earned another refusal in between: a few more then.
    for _ in 0..100 {
        match node.socket().query_token("rubbish").try_open().await {
            Ok(mut client) => assert_eq!(client.closed().await, (1008, "token_malformed".to_owned())),
            Err(answer) => {
                throttled = Some(answer);
                break;
            }
        }
    }
    let answer = throttled.expect("one too many at last");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), Some("1"));
    node.metric_reaches("conclave_rate_limited_total", &[("limit", "refusals_per_second")], 1.0)
        .await;
    node.client("ann").await.close(1000).await;
}

#[tokio::test]
async fn a_connection_ends_with_its_token_unless_it_brings_a_new_one() {
    let node = harness::node().set("auth.leeway", "0s").start().await;
    let short = |sub: &str| json!({"sub": sub, "exp": now() + 3});
    let mut ends = node.client_with(&short("ends")).await;
    let mut stays = node.client_with(&short("stays")).await;
    let mut watcher = node.client("watcher").await;
    watcher.join("lobby").await;
    ends.join("lobby").await;
    stays.join("lobby").await;
    for (token, reason) in [
        ("rubbish".to_owned(), Some("token_malformed")),
        (
            node.token_with(&json!({"sub": "stays", "exp": now() - 100})),
            Some("token_expired"),
        ),
        (node.token("somebody else"), Some("token_malformed")),
    ] {
        let error = stays.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(error["code"], "forbidden", "{error}");
        assert_eq!(error["reason"].as_str(), reason, "{error}");
    }
    let claims = token::claims("stays");
    let ok = stays
        .ask(json!({"type": "auth", "token": node.token_with(&claims)}))
        .await;
    assert_eq!((&ok["type"], &ok["expires"]), (&json!("ok"), &claims["exp"]), "{ok}");
    assert_eq!(ends.closed().await, (1008, "token_expired".to_owned()));
    let left = watcher.until("left").await;
    assert_eq!(left["user"]["id"], "ends");
    stays.chat("lobby", "still here").await;
}

impl Ask {
    fn cookie_named(self, name: &str) -> Self {
        self.header("Cookie", &format!("{name}=value")).origin(ORIGIN)
    }
}

impl harness::Client {
    /// The close frame, which must be the first thing that comes.
    async fn closed_first(&mut self, name: &str) -> (u16, String) {
        match self.next().await {
            Some(harness::Frame::Close(code, reason)) => (code, reason),
            other => panic!("{name}: a close was due, not {other:?}"),
        }
    }
}

/// Upgraded, closed with 1008 and `word`, and gone.
async fn turned_away(ask: &Ask, word: &str) {
    let mut client = ask.open().await;
    client.expect_close(1008, word).await;
    client.gone().await;
}

/// Somebody who knows one of our secrets and tries everything.
struct Forge {
    ec: rcgen::KeyPair,
}

impl Forge {
    fn new() -> Self {
        Self {
            ec: rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"),
        }
    }

    fn node(&self) -> harness::Builder {
        let rules = format!("issuer = \"{ISSUER}\"\naudience = [\"conclave\"]");
        harness::node()
            .file("ec.pem", self.ec.public_key_pem())
            .only_key(&format!(
                "algorithm = \"HS256\"\nkid = \"main\"\nsecret_file = \"secret\"\n{rules}"
            ))
            .key(&format!(
                "algorithm = \"ES256\"\nkid = \"ec\"\npublic_key_file = \"ec.pem\"\n{rules}"
            ))
    }

    fn claims(&self) -> Value {
        json!({"sub": "mallory", "exp": now() + 3600, "iss": ISSUER, "aud": "conclave"})
    }

    /// The good claims with one of them changed; `null` takes it away.
    fn with(&self, claim: &str, value: Value) -> String {
        let mut claims = self.claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
            value => claims[claim] = value,
        }
        self.sign(&claims)
    }

    fn sign(&self, claims: &Value) -> String {
        sign_with(&json!({"alg": "HS256", "kid": "main"}), claims, SECRET)
    }

    fn sign_ec(&self, claims: &Value) -> String {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.ec.serialize_der()).unwrap();
        let signed = format!(
            "{}.{}",
            encode(r#"{"alg":"ES256","kid":"ec"}"#),
            encode(claims.to_string())
        );
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }

    fn bad_tokens(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut bad = self.bad_forms();
        bad.extend(self.bad_signatures());
        bad.extend(self.bad_claims());
        bad
    }

    fn bad_forms(&self) -> Vec<(&'static str, String, &'static str)> {
        let good = self.sign(&self.claims());
        let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let malformed = |name, token: String| (name, token, "token_malformed");
        let twice = self.claims().to_string().replacen("{", r#"{"sub":"admin","#, 1);
        vec![
            malformed("nothing", String::new()),
            malformed("a word", "rubbish".to_owned()),
            malformed("two parts", format!("{header}.{claims}")),
            malformed("five parts", format!("{header}.{claims}.{signature}.x.y")),
            malformed("only dots", "..".to_owned()),
            malformed("padding", format!("{header}=.{claims}.{signature}")),
            malformed("not base64", format!("{header}.{claims}.!!!!")),
            malformed("half a percent escape", format!("{good}%4")),
            malformed("not UTF-8", format!("{good}%ff")),
            malformed("a NUL", format!("{good}%00")),
            malformed("header not JSON", sign_text("{", &self.claims().to_string(), SECRET)),
            malformed("header an array", sign_text("[]", &self.claims().to_string(), SECRET)),
            malformed("claims an array", sign_text(r#"{"alg":"HS256"}"#, "[]", SECRET)),
            malformed(
                "sub twice",
                sign_text(r#"{"alg":"HS256","kid":"main"}"#, &twice, SECRET),
            ),
            malformed(
                "alg twice",
                sign_text(r#"{"alg":"HS256","alg":"none"}"#, &self.claims().to_string(), SECRET),
            ),
            malformed(
                "crit",
                sign_with(
                    &json!({"alg": "HS256", "kid": "main", "crit": ["exp"]}),
                    &self.claims(),
                    SECRET,
                ),
            ),
            malformed(
                "kid a number",
                sign_with(&json!({"alg": "HS256", "kid": 1}), &self.claims(), SECRET),
            ),
            malformed("9 KiB", self.with("padding", json!("x".repeat(9 * 1024)))),
            malformed(
                "deep",
                self.with(
                    "deep",
                    serde_json::from_str(&("[".repeat(100) + &"]".repeat(100))).unwrap(),
                ),
            ),
        ]
    }

    fn bad_signatures(&self) -> Vec<(&'static str, String, &'static str)> {
        let good = self.sign(&self.claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let claims = encode(self.claims().to_string());
        let other = |header: Value, secret: &[u8]| sign_with(&header, &self.claims(), secret);
        let pem = self.ec.public_key_pem();
        let ec = self.sign_ec(&self.claims());
        let signature_bad = |name, token: String| (name, token, "token_signature");
        vec![
            signature_bad("no signature", format!("{signed}.")),
            signature_bad("half a signature", format!("{signed}.{}", &signature[..20])),
            signature_bad("another's signature", format!("{signed}.{}", encode([0; 32]))),
            signature_bad("alg none", format!("{}.{claims}.", encode(r#"{"alg":"none"}"#))),
            signature_bad(
                "alg nOnE",
                format!("{}.{claims}.", encode(r#"{"alg":"nOnE","kid":"main"}"#)),
            ),
            signature_bad("alg none, signed", other(json!({"alg": "none", "kid": "main"}), SECRET)),
            signature_bad("alg hs256", other(json!({"alg": "hs256", "kid": "main"}), SECRET)),
            signature_bad(
                "alg HS512 over HS256",
                other(json!({"alg": "HS512", "kid": "main"}), SECRET),
            ),
            signature_bad(
                "public key as secret",
                other(json!({"alg": "HS256", "kid": "ec"}), pem.as_bytes()),
            ),
            signature_bad(
                "secret under the public key's kid",
                other(json!({"alg": "ES256", "kid": "ec"}), SECRET),
            ),
            signature_bad(
                "wrong secret",
                other(
                    json!({"alg": "HS256", "kid": "main"}),
                    b"another secret, as long as ours is",
                ),
            ),
            signature_bad("unknown kid", other(json!({"alg": "HS256", "kid": "old"}), SECRET)),
            signature_bad(
                "kid a path",
                other(json!({"alg": "HS256", "kid": "../../../../dev/null"}), b""),
            ),
            signature_bad(
                "kid SQL",
                other(json!({"alg": "HS256", "kid": "x' UNION SELECT 'k"}), b"k"),
            ),
            signature_bad(
                "a key of its own",
                other(json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "aw"}}), b"k"),
            ),
            signature_bad(
                "an ES256 signature of zeros",
                format!("{}.{}", ec.rsplit_once('.').unwrap().0, encode([0; 64])),
            ),
        ]
    }

    fn bad_claims(&self) -> Vec<(&'static str, String, &'static str)> {
        let malformed = |name, claim, value| (name, self.with(claim, value), "token_malformed");
        vec![
            malformed("no sub", "sub", Value::Null),
            malformed("sub empty", "sub", json!("")),
            malformed("sub true", "sub", json!(true)),
            malformed("sub an array", "sub", json!(["admin"])),
            malformed("sub with a fraction", "sub", json!(1.5)),
            malformed("sub of two lines", "sub", json!("a\nb")),
            malformed("sub of 257 bytes", "sub", json!("x".repeat(257))),
            malformed("no exp", "exp", Value::Null),
            malformed("exp a word", "exp", json!("never")),
            malformed("exp below nought", "exp", json!(-1)),
            malformed("exp in milliseconds", "exp", json!(now() * 1000)),
            malformed("exp huge", "exp", json!(1e300)),
            malformed("nbf a word", "nbf", json!("now")),
            malformed("iss a number", "iss", json!(1)),
            malformed("aud an object", "aud", json!({})),
            malformed("name a number", "name", json!(1)),
            malformed("info an array", "info", json!([])),
            malformed("info of 2 KiB", "info", json!({"x": "x".repeat(2048)})),
            malformed("rooms an array", "rooms", json!(["lobby"])),
            malformed("rooms with a word of its own", "rooms", json!({"lobby": ["fly"]})),
            ("expired", self.with("exp", json!(now() - 60)), "token_expired"),
            ("expired in 1970", self.with("exp", json!(0)), "token_expired"),
            ("not yet", self.with("nbf", json!(now() + 600)), "token_not_yet_valid"),
            (
                "another issuer",
                self.with("iss", json!("https://evil.example")),
                "token_issuer",
            ),
            ("no issuer", self.with("iss", Value::Null), "token_issuer"),
            (
                "issuer and a slash",
                self.with("iss", json!(format!("{ISSUER}/"))),
                "token_issuer",
            ),
            (
                "another audience",
                self.with("aud", json!("elsewhere")),
                "token_audience",
            ),
            ("no audience", self.with("aud", Value::Null), "token_audience"),
            ("audience empty", self.with("aud", json!([])), "token_audience"),
        ]
    }
}

#[tokio::test]
async fn an_aud_where_none_is_configured_is_refused() {
    let node = harness::node().start().await;
    let token = node.token_with(&json!({"sub": "ann", "exp": now() + 60, "aud": "elsewhere"}));
    turned_away(&node.socket().query_token(&token), "token_audience").await;
}
