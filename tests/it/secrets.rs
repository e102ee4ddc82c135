//! No token, query string, cookie or key is ever said again, wherever it came in.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::collector::Collector;
use crate::harness::frames::{FIN, TEXT};
use crate::harness::http2::Http2;
use crate::harness::node::{ORIGIN, read_to_end};
use crate::harness::tls::Certificate;
use crate::harness::token::{self, encode, sign_with};
use crate::harness::{self, Client, Frame};

/// In claims, queries, cookies, secrets, chats; no other word contains it.
const CANARY: &str = "canary7Kq";
/// What signs good tokens, and the guests' ones.
const SECRET: &[u8] = b"canary7Kq is a secret of more than thirty-two bytes";

/// Everything that may not be said: the canary itself and what it looks like in Base64 at each of the three
/// places in a group, in percent-encoding, in hex, backwards; and signatures.
struct Canaries(Vec<String>);

impl Canaries {
    fn new() -> Self {
        let mut forms = vec![
            CANARY.to_owned(),
            CANARY.to_lowercase(),
            CANARY.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            CANARY.bytes().map(|byte| format!("{byte:02x}")).collect(),
            // As a list of bytes, which is how `Debug` shows them.
            format!("{:?}", CANARY.as_bytes()).trim_matches(['[', ']']).to_owned(),
        ];
        for shift in 0..3 {
            let shifted = format!("{}{CANARY}", "x".repeat(shift));
            for engine in [URL_SAFE_NO_PAD, STANDARD_NO_PAD] {
                let text = engine.encode(&shifted);
                // Without the characters that share bits with what stands beside it.
                forms.push(text[(shift * 4).div_ceil(3)..text.len() - 2].to_owned());
            }
        }
        Self(forms)
    }

    /// From now on the token's signature and payload are canaries too.
    fn add_token(&mut self, token: &str) {
        let parts = token.split('.').skip(1).filter(|part| part.len() >= 12);
        self.0
            .extend(parts.map(|part| part[..12.max(part.len() / 2)].to_owned()));
    }

    fn assert_none_in(&self, whose: &str, said: &str) {
        for form in &self.0 {
            let at = said.find(form.as_str());
            let near = at.map(|at| said[..at].lines().last().unwrap_or_default().to_owned() + form);
            assert_eq!(near, None, "{whose} shows {form}");
        }
    }
}

#[test]
fn the_canaries_would_be_found() {
    let canaries = Canaries::new();
    for prefix in ["", "a", "ab", "abc"] {
        let text = encode(format!("{prefix}{CANARY}zz"));
        assert!(canaries.0.iter().any(|form| text.contains(form.as_str())), "{text}");
    }
}

/// A client that notes everything it is told; what somebody says himself he may hear.
async fn note(client: &mut Client, noted: &mut String) {
    loop {
        match client.next().await {
            Some(Frame::Text(text)) => {
                let over = text.contains("\"the end\"");
                noted.push_str(&text);
                if over {
                    return;
                }
            }
            Some(Frame::Close(_, reason)) => return noted.push_str(&reason),
            Some(_) => {}
            None => return,
        }
    }
}

/// Claims in which the canary is where no client is meant to see it.
fn claims(sub: &str) -> serde_json::Value {
    json!({"sub": sub, "name": sub, "exp": token::now() + 3600, "jti": CANARY, "private": {"note": CANARY}})
}

#[tokio::test]
async fn what_comes_in_secret_stays_so() {
    let mut canaries = Canaries::new();
    let collector = Collector::start().await;
    let node = harness::node()
        .only_key("algorithm = \"HS256\"\nsecret_file = \"canary.secret\"")
        .file("canary.secret", SECRET)
        .set("log.level", "trace")
        .set("session.enabled", "true")
        .set(
            "session.secret",
            &format!("{CANARY} for guests, more than thirty-two bytes"),
        )
        .set("traces.endpoint", &collector.endpoint)
        .set("traces.sample_ratio", "1")
        .set("traces.headers", &format!("[\"x-key={CANARY}\"]"))
        .set("auth.refusals_burst", "60")
        .set("auth.refusals_per_second", "1")
        .set("limits.messages_per_second", "50")
        .set("echo.enabled", "true")
        .start()
        .await;
    let sign = |claims: &serde_json::Value| sign_with(&json!({"alg": "HS256"}), claims, SECRET);
    let good = sign(&claims("ann"));
    canaries.add_token(&good);
    let mut noted = String::new();

    // Good tokens, in each place and on both versions of HTTP, with a query beside.
    let mut ann = node
        .ask("GET", &format!("/ws?q={CANARY}&token={good}"))
        .upgrade()
        .open()
        .await
        .welcomed()
        .await;
    let bearer = node.socket().bearer(&good).header("X-Private", CANARY);
    let mut others = vec![
        bearer.open().await.welcomed().await,
        node.socket().cookie(&good).origin(ORIGIN).open().await.welcomed().await,
        Http2::connect(&node).await.socket(&good).await.welcomed().await,
    ];
    noted.push_str(&ann.welcome.to_string());

    // Bad ones of each kind.
    let mut expired = claims("ann");
    expired["exp"] = json!(1_000_000_000);
    let mut typed = claims("ann");
    typed["sub"] = json!([CANARY]);
    let mut audience = claims("ann");
    audience["aud"] = json!(CANARY);
    let mut early = claims("ann");
    early["nbf"] = json!(token::now() + 5000);
    let bad = [
        format!("{good}{CANARY}"),
        good.rsplit_once('.').unwrap().0.to_owned(),
        CANARY.to_owned(),
        format!("{CANARY}.{CANARY}.{CANARY}"),
        CANARY.repeat(1200),
        sign(&expired),
        sign(&typed),
        sign(&audience),
        sign(&early),
        sign_with(&json!({"alg": "none"}), &claims("ann"), SECRET),
        sign_with(&json!({"alg": CANARY}), &claims("ann"), SECRET),
        sign_with(&json!({"alg": "HS256", "kid": CANARY}), &claims("ann"), &[1; 32]),
        sign_with(&json!({"alg": "HS256", "crit": [CANARY]}), &claims("ann"), SECRET),
        sign_with(
            &json!({"alg": "HS256"}),
            &json!({"exp": token::now() + 60, "n": CANARY}),
            SECRET,
        ),
    ];
    for token in &bad {
        for ask in [
            node.socket().query_token(token),
            node.socket().bearer(token),
            node.socket().cookie(token).origin(ORIGIN),
        ] {
            match ask.try_open().await {
                Ok(mut client) => note(&mut client, &mut noted).await,
                Err(answer) => noted.push_str(&format!("{answer:?}")),
            }
        }
    }
    let twice = node.socket().query_token(&good).query_token(CANARY);
    note(&mut twice.open().await, &mut noted).await;

    // Until the answer is 429.
    for _ in 0..100 {
        if let Err(answer) = node.socket().query_token(CANARY).try_open().await {
            assert_eq!(answer.status, 429, "{answer:?}");
            noted.push_str(&format!("{answer:?}"));
            break;
        }
    }

    // Requests that are refused before anybody looks for a token, or that go elsewhere.
    let query = format!("?token={good}&{CANARY}={CANARY}");
    let origin = format!("https://{CANARY}.example");
    let plain = [
        node.socket().query_token(&good).origin(&origin),
        node.socket().query_token(&good).origin(CANARY),
        node.ask("GET", &format!("/ws{query}")),
        node.socket()
            .query_token(&good)
            .replace("Sec-WebSocket-Key", Some(CANARY)),
        node.socket()
            .query_token(&good)
            .replace("Sec-WebSocket-Version", Some(CANARY)),
        node.ask("GET", &format!("/{CANARY}{query}")),
        node.ask("POST", &format!("/livez{query}")),
        node.ask(CANARY, &format!("/readyz{query}")),
        node.ask("GET", &format!("/livez{query}")).bearer(&good).cookie(&good),
        node.ask("GET", &format!("https://a:{CANARY}@localhost/livez{query}")),
        node.ask("POST", &format!("/session{query}")).cookie(&good).body(CANARY),
        node.ask("DELETE", &format!("/session{query}"))
            .cookie(&good)
            .origin(&origin),
    ];
    for ask in &plain {
        let answer = ask.answer().await;
        assert!(answer.status != 101, "{ask:?}");
        noted.push_str(&format!("{answer:?}"));
    }
    // A guest's cookie is told to the guest, and to nobody else.
    let guest = node
        .ask("POST", "/session")
        .header("Content-Type", "application/json")
        .origin("https://localhost")
        .body(json!({"name": "Guest"}).to_string())
        .answer()
        .await;
    assert_eq!(guest.status, 200, "{guest:?}");
    let cookie = guest.header("set-cookie").expect("a cookie").to_owned();
    let cookie = cookie.split(['=', ';']).nth(1).expect("a value");
    canaries.add_token(cookie);
    others.push(
        node.socket()
            .cookie(cookie)
            .origin("https://localhost")
            .open()
            .await
            .welcomed()
            .await,
    );

    // Bytes that are no HTTP, no TLS, no WebSocket.
    let mut stranger = node.tcp().await;
    stranger
        .write_all(format!("GET /ws{query} HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    noted.push_str(&String::from_utf8_lossy(&read_to_end(&mut stranger).await));
    let mut broken = node.tls().connect().await;
    broken
        .write_all(format!("GET /ws{query}\u{1} HTTP/9\r\n{CANARY}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    noted.push_str(&String::from_utf8_lossy(&read_to_end(&mut broken).await));
    let mut violating = node.socket().bearer(&good).open().await.welcomed().await;
    violating.send_frame(FIN | TEXT | 0x40, CANARY.as_bytes()).await;
    note(&mut violating, &mut noted).await;

    // Messages that hold a token: a renewal, good and bad, and what looks like one.
    for other in &mut others {
        other.join("lobby").await;
    }
    ann.join("lobby").await;
    let renewals = bad.iter().filter(|token| token.len() < 8000).chain([&good]);
    for renewal in renewals {
        ann.send(json!({"type": "auth", "token": renewal, "ref": 1})).await;
    }
    for text in [
        format!("{{\"type\":\"auth\",\"token\":\"{good}"),
        format!("{{\"type\":\"auth\",\"token\":{{\"{good}\":1}}}}"),
        format!("{{\"type\":\"{good}\"}}"),
        format!("{{\"type\":\"chat\",\"room\":\"{good}\u{7}\",\"content\":1}}"),
        format!("{{\"type\":\"join\",\"room\":\"*{CANARY}\"}}"),
        format!("{{\"type\":\"join\",\"{CANARY}\":\"x\"}}"),
        format!("{{\"type\":\"chat\",\"room\":\"{CANARY}\",\"content\":\"{good}\"}}"),
        format!("{CANARY} {good}"),
    ] {
        ann.send_text(&text).await;
    }
    ann.send(json!({"type": "ping", "ref": "the end"})).await;
    note(&mut ann, &mut noted).await;
    for other in &mut others {
        other.send(json!({"type": "ping", "ref": "the end"})).await;
        note(other, &mut noted).await;
    }
    let flood = harness::frames::text(&json!({"type": "auth", "token": good}).to_string()).repeat(200);
    ann.send_bytes(&flood).await;
    note(&mut ann, &mut noted).await;

    // What was looked at on the way shows that the paths above were taken.
    let metrics = node.metrics().await;
    for result in ["admitted", "denied", "foreign_origin", "throttled", "bad_request"] {
        assert!(
            metrics.sum("conclave_upgrades_total", &[("result", result)]) > 0.0,
            "{result}"
        );
    }
    for path in ["/metrics", &format!("/metrics{query}"), "/", &format!("/{CANARY}")] {
        noted.push_str(&format!("{:?}", node.admin(path).await));
    }
    node.terminate("TERM");
    drop((ann, others, violating));
    assert_eq!(node.wait_exit().await.code(), Some(0));

    let seen = node.process.seen();
    assert!(seen.stdout.len() > 50, "trace level says a lot: {}", seen.stdout.len());
    canaries.assert_none_in("the log", &seen.stdout.join("\n"));
    canaries.assert_none_in("stderr", &seen.stderr);
    assert!(collector.spans().len() > 10);
    for body in collector.bodies() {
        canaries.assert_none_in("a span", &String::from_utf8_lossy(&body));
    }
    canaries.assert_none_in("an answer", &noted);
}

/// What the verbs of the command line say about a configuration that holds secrets, good and bad.
#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let canaries = Canaries::new();
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::new();
    let secret = format!("{CANARY} is more than thirty-two bytes long");
    for (name, text) in [
        ("tls.crt", certificate.pem.as_str()),
        ("tls.key", certificate.key_pem.as_str()),
        (
            "canary.pem",
            &format!("-----BEGIN PUBLIC KEY-----\n{}\n", encode(CANARY)),
        ),
        (
            "canary.jwks",
            &format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{}\"", encode(CANARY)),
        ),
        ("short", "canary7Kq"),
        (
            "headers",
            &format!("authorization=Bearer {CANARY}\n{CANARY} without a sign\n"),
        ),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let tls = "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n";
    let key = |table: &str| format!("{tls}[[auth.keys]]\nalgorithm = \"HS256\"\n{table}\n");
    let guests = format!("{tls}[session]\nenabled = true\nsecret = \"{secret}\"\n");
    let configs = [
        (key(&format!("secret = \"{secret}\"")), true),
        (guests.clone(), true),
        (
            format!("[traces]\nendpoint = \"http://127.0.0.1:1\"\nheaders = [\"x={CANARY}\"]\n{guests}"),
            true,
        ),
        // Wrong in every way that tempts one to quote.
        (key(&format!("secret = \"{CANARY}\"")), false),
        (key(&format!("secret = [\"{CANARY}\"]")), false),
        (key(&format!("secret = {CANARY}")), false),
        (key(&format!("secret = \"{secret}")), false),
        (key(&format!("sekret = \"{secret}\"")), false),
        (key("secret_file = \"short\""), false),
        (key("public_key_file = \"canary.pem\"").replace("HS256", "RS256"), false),
        (key("jwks_file = \"canary.jwks\""), false),
        (
            format!("{tls}[traces]\nendpoint = \"http://a:{CANARY}@127.0.0.1:1\"\n"),
            false,
        ),
        (
            format!("{tls}[traces]\nendpoint = \"http://127.0.0.1:1\"\nheaders = [\"{CANARY}\"]\n"),
            false,
        ),
        (
            format!("{tls}[traces]\nendpoint = \"http://127.0.0.1:1\"\nheaders_file = \"headers\"\n"),
            false,
        ),
        (
            format!("{tls}[session]\nenabled = true\nsecret = \"{CANARY}\"\n"),
            false,
        ),
        (
            format!("{tls}[session]\nenabled = true\nsecret = {{ a = \"{CANARY}\" }}\n"),
            false,
        ),
    ];
    for (config, good) in &configs {
        std::fs::write(folder.path().join("conclave.toml"), config).unwrap();
        for json in [&[][..], &["--json"]] {
            let (code, said) = run(
                folder.path(),
                &[&["check-config", "--print", "--config", "conclave.toml"], json].concat(),
                &[],
            );
            assert_eq!(code == Some(0), *good, "{config}\n{said}");
            canaries.assert_none_in(&format!("check-config of {config}"), &said);
        }
        if !good {
            let (code, said) = run(folder.path(), &["serve", "--config", "conclave.toml"], &[]);
            assert_eq!(code, Some(64), "{config}\n{said}");
            canaries.assert_none_in(&format!("serve of {config}"), &said);
        }
    }
    // The same from the environment.
    std::fs::write(folder.path().join("conclave.toml"), key("secret_file = \"long\"")).unwrap();
    std::fs::write(folder.path().join("long"), &secret).unwrap();
    for (name, value) in [
        ("CONCLAVE_SESSION__SECRET", secret.as_str()),
        ("CONCLAVE_SESSION__SECRET", CANARY),
        ("CONCLAVE_TRACES__HEADERS", &format!("x={CANARY}")),
        ("CONCLAVE_TRACES__HEADERS", CANARY),
        ("CONCLAVE_AUTH__KEYS__0__SECRET", &secret),
        ("CONCLAVE_SESION__SECRET", &secret),
    ] {
        let more = [
            (name, value),
            ("CONCLAVE_SESSION__ENABLED", "true"),
            ("CONCLAVE_TRACES__ENDPOINT", "http://127.0.0.1:1"),
        ];
        for json in [&[][..], &["--json"]] {
            let (_, said) = run(
                folder.path(),
                &[&["check-config", "--print", "--config", "conclave.toml"], json].concat(),
                &more,
            );
            canaries.assert_none_in(&format!("check-config with {name}"), &said);
        }
    }
    // A bad token is explained without being repeated.
    let bad = sign_with(&json!({"alg": "HS256"}), &claims("ann"), &[1; 40]);
    let (code, said) = run(
        folder.path(),
        &["token", "--config", "conclave.toml", "--check", &bad],
        &[],
    );
    assert_eq!(code, Some(1), "{said}");
    let signature = bad.rsplit_once('.').unwrap().1;
    assert!(!said.contains(&signature[..12]), "{said}");
}

/// Exit code, and everything said.
fn run(folder: &std::path::Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(arguments)
        .current_dir(folder)
        .envs(environment.iter().copied())
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
