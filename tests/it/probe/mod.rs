//! `conclave probe` against real servers and against what is none: it says which stage broke, and nobody notices it.

mod exporter;
mod invisible;
mod nodes;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::harness::node::ORIGIN;
use crate::harness::tls::Certificate;
use crate::harness::{self, Node, token, within};

/// What a run of the verb came to.
pub struct Probed {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Probed {
    /// The object of `--json`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}\n{}", self.out, self.err))
    }

    /// The stage that failed.
    pub fn stage(&self) -> String {
        self.json()["failed"]["stage"].as_str().unwrap_or("none").to_owned()
    }

    #[track_caller]
    pub fn passes(&self) {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
    }
}

/// Runs it, with what goes to stdin.
pub async fn probe_with(words: &[&str], stdin: &str, environment: &[(&str, &str)]) -> Probed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.arg("probe").args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONCLAVE_") {
            command.env_remove(name);
        }
    }
    // No key of a developer's own.
    command.env("CONCLAVE_STATE_DIR", "/nonexistent");
    command.envs(environment.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("it runs");
        // Who does not read it may have ended.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().expect("it ends")
    });
    let output = within("the end of the probe", ran).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Probed {
        code: output.status.code().expect("no signal"),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

pub async fn probe(words: &[&str]) -> Probed {
    probe_with(words, "", &[]).await
}

/// What a probe's token says.
pub fn claims() -> Value {
    json!({"sub": "probe", "exp": token::now() + 3600, "probe": true})
}

pub fn url(address: SocketAddr) -> String {
    format!("wss://localhost:{}/ws", address.port())
}

/// A probe of this node with these claims, and more words.
pub async fn probe_node(node: &Node, claims: &Value, more: &[&str]) -> Probed {
    let (url, ca) = (url(node.listen), node.folder().join("tls.crt"));
    let mut words = vec![url.as_str(), "--token", "-", "--ca", ca.to_str().unwrap()];
    words.extend(more);
    let token = token::sign(claims);
    let probed = probe_with(&words, &token, &[]).await;
    let said = format!("{}{}", probed.out, probed.err);
    let signature = token.rsplit('.').next().unwrap();
    assert!(!said.contains(signature), "the token is never shown: {said}");
    probed
}

#[tokio::test]
async fn every_stage_is_passed_and_timed_in_every_form() {
    let node = harness::node().start().await;
    let probed = probe_node(&node, &claims(), &["--room", "lobby"]).await;
    probed.passes();
    for line in [
        "dns ", "tcp ", "tls ", "upgrade ", "auth ", "join ", "publish ", "ping ", "close ", "ok in ",
    ] {
        assert!(probed.out.contains(line), "{line}: {}", probed.out);
    }
    assert_eq!(probed.err, "");
    let probed = probe_node(&node, &claims(), &["--json"]).await;
    probed.passes();
    let found = probed.json();
    let stages: Vec<_> = found["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| stage["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        [
            "dns", "tcp", "tls", "upgrade", "auth", "join", "publish", "ping", "close"
        ]
    );
    assert_eq!((&found["ok"], &found["tls"]["verified"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&found["room"], &found["kept"]),
        (&json!("conclave-probe"), &json!("memory"))
    );
    assert!(found["session"].as_str().unwrap().starts_with("s-"));
    assert!(found["tls"]["days_left"].as_i64().unwrap() > 0);
    let probed = probe_node(&node, &claims(), &["--prometheus"]).await;
    probed.passes();
    let success = format!("conclave_probe_success{{target=\"{}\"}} 1\n", url(node.listen));
    assert!(probed.out.contains(&success), "{}", probed.out);
    let probed = probe_node(&node, &claims(), &["--nagios", "--warn", "1h"]).await;
    probed.passes();
    assert!(probed.out.starts_with("CONCLAVE OK - "), "{}", probed.out);
    let probed = probe_node(&node, &claims(), &["--nagios", "--warn", "1us"]).await;
    assert_eq!(probed.code, 1, "{}", probed.out);
    let probed = probe_node(&node, &claims(), &["--nagios", "--crit", "1us"]).await;
    assert_eq!(probed.code, 2, "{}", probed.out);
}

#[tokio::test]
async fn a_token_comes_from_a_file_a_variable_a_key_or_as_a_cookie() {
    let node = harness::node().start().await;
    let (url, folder) = (url(node.listen), node.folder());
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ca, token_file) = (file("tls.crt"), file("probe.jwt"));
    std::fs::write(&token_file, token::sign(&claims()) + "\n").unwrap();
    let words = [url.as_str(), "--ca", &ca];
    probe(&[&words[..], &["--token-file", &token_file]].concat())
        .await
        .passes();
    let token = token::sign(&claims());
    probe_with(&words, "", &[("CONCLAVE_TOKEN", &token)]).await.passes();
    let signed = probe_with(
        &[&words[..], &["--sign-with", "conclave.toml", "--json"]].concat(),
        "",
        &[],
    )
    .await;
    assert_eq!(signed.code, 2, "there is no such file here: {}", signed.err);
    // The secret is named as seen from the node's folder.
    let secret = file("secret");
    let config = format!(
        "[tls]\ncertificate = \"{ca}\"\nkey = \"{}\"\n[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"{secret}\"\n",
        file("tls.key")
    );
    std::fs::write(folder.join("sign.toml"), config).unwrap();
    let config = file("sign.toml");
    let signed = probe(&[&words[..], &["--sign-with", &config, "--json"]].concat()).await;
    signed.passes();
    assert_eq!(signed.json()["probe_token"], true);
    probe_node(&node, &claims(), &["--cookie"]).await.passes();
    let probed = probe_node(&node, &claims(), &["--cookie", "--origin", ORIGIN]).await;
    probed.passes();
    let none = probe(&words).await;
    assert_eq!(none.code, 2, "{}", none.err);
    assert!(
        none.err.contains("no token to probe with") && none.err.contains("--token-file"),
        "{}",
        none.err
    );
}

#[tokio::test]
async fn a_room_is_chosen_that_the_token_allows() {
    let node = harness::node().start().await;
    let mut limited = claims();
    limited["rooms"] = json!({"ops/*": ["join", "chat"]});
    let probed = probe_node(&node, &limited, &["--json"]).await;
    probed.passes();
    assert_eq!(probed.json()["room"], "ops/conclave-probe");
    let probed = probe_node(&node, &limited, &["--json", "--room", "lobby"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (1, "join"), "{}", probed.out);
    assert!(
        probed.out.contains("forbidden") && probed.out.contains("--room"),
        "{}",
        probed.out
    );
    limited["rooms"] = json!({"lobby": ["join"]});
    let probed = probe_node(&node, &limited, &["--json", "--room", "lobby"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (1, "publish"), "{}", probed.out);
}

#[tokio::test]
async fn a_refused_token_is_6_and_says_the_word() {
    let node = harness::node().start().await;
    let mut expired = claims();
    expired["exp"] = json!(token::now() - 60);
    let probed = probe_node(&node, &expired, &[]).await;
    assert_eq!(probed.code, 6, "{}", probed.err);
    assert!(
        probed.err.contains("auth: closed with 1008 token_expired"),
        "{}",
        probed.err
    );
    assert!(probed.err.contains("help: mint a new one"), "{}", probed.err);
    let (url, ca) = (url(node.listen), node.folder().join("tls.crt"));
    let foreign = token::sign_with(
        &json!({"alg": "HS256"}),
        &claims(),
        b"another secret, long enough for a key",
    );
    let probed = probe_with(
        &[&url, "--token", "-", "--ca", ca.to_str().unwrap(), "--json"],
        &foreign,
        &[],
    )
    .await;
    assert_eq!((probed.code, probed.stage().as_str()), (6, "auth"), "{}", probed.out);
    assert!(probed.out.contains("token_signature"), "{}", probed.out);
    // As a Nagios plugin it is critical, whatever the stage.
    let probed = probe_node(&node, &expired, &["--nagios"]).await;
    assert_eq!(probed.code, 2, "{}", probed.out);
}

#[tokio::test]
async fn a_refused_upgrade_is_5() {
    let node = harness::node().start().await;
    let probed = probe_node(&node, &claims(), &["--origin", "https://evil.example", "--json"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (5, "upgrade"), "{}", probed.out);
    assert!(
        probed.out.contains("HTTP 403") && probed.out.contains("origin.allow"),
        "{}",
        probed.out
    );
    let (url, ca) = (
        format!("wss://localhost:{}/nowhere", node.listen.port()),
        node.folder().join("tls.crt"),
    );
    let probed = probe_with(
        &[&url, "--token", "-", "--ca", ca.to_str().unwrap(), "--json"],
        "t",
        &[],
    )
    .await;
    assert_eq!((probed.code, probed.stage().as_str()), (5, "upgrade"), "{}", probed.out);
    assert!(
        probed.out.contains("HTTP 404") && probed.out.contains("/ws"),
        "{}",
        probed.out
    );
}

#[tokio::test]
async fn no_way_there_is_3() {
    let closed = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let url = format!("wss://127.0.0.1:{closed}/ws");
    let probed = probe(&[&url, "--token", "t", "--insecure", "--json"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (3, "tcp"), "{}", probed.out);
    assert!(probed.out.contains("refused the connection"), "{}", probed.out);
    let words = [
        "wss://conclave-probe-test.invalid/ws",
        "--token",
        "t",
        "--insecure",
        "--json",
        "--timeout",
        "25s",
    ];
    let probed = probe(&words).await;
    assert_eq!((probed.code, probed.stage().as_str()), (3, "dns"), "{}", probed.out);
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_4_and_says_why() {
    let node = harness::node().start().await;
    let (folder, port) = (node.folder(), node.listen.port());
    // Nobody knows its issuer.
    let other = folder.join("other.crt");
    std::fs::write(&other, Certificate::new().pem).unwrap();
    let words = |more: &[&str]| {
        let words = [
            url(node.listen),
            "--token".to_owned(),
            "-".to_owned(),
            "--json".to_owned(),
        ];
        words
            .into_iter()
            .chain(more.iter().map(ToString::to_string))
            .collect::<Vec<_>>()
    };
    let token = token::sign(&claims());
    let probed = async |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        probe_with(&words, &token, &[]).await
    };
    let untrusted = probed(words(&["--ca", other.to_str().unwrap()])).await;
    assert_eq!(
        (untrusted.code, untrusted.stage().as_str()),
        (4, "tls"),
        "{}",
        untrusted.out
    );
    assert!(
        untrusted.out.contains("whom nobody here trusts") && untrusted.out.contains("--ca"),
        "{}",
        untrusted.out
    );
    assert_eq!(untrusted.json()["tls"]["verified"], false);
    let anyway = probed(words(&["--insecure"])).await;
    anyway.passes();
    assert_eq!(anyway.json()["tls"]["verified"], false, "it says so");
    // Another name.
    let resolve = format!("chat.example.com:{port}:127.0.0.1");
    let ca = folder.join("tls.crt");
    let mut other_name = words(&["--ca", ca.to_str().unwrap(), "--resolve", &resolve]);
    other_name[0] = format!("wss://chat.example.com:{port}/ws");
    let other_name = probed(other_name).await;
    assert_eq!(
        (other_name.code, other_name.stage().as_str()),
        (4, "tls"),
        "{}",
        other_name.out
    );
    assert!(
        other_name.out.contains("not for chat.example.com, but for localhost"),
        "{}",
        other_name.out
    );
    // One that was good once.
    let (listener, ca_pem) = expired().await;
    let ca = folder.join("expired.crt");
    std::fs::write(&ca, ca_pem).unwrap();
    let mut late = words(&["--ca", ca.to_str().unwrap()]);
    late[0] = format!("wss://localhost:{listener}/ws");
    let late = probed(late).await;
    assert_eq!((late.code, late.stage().as_str()), (4, "tls"), "{}", late.out);
    assert!(late.out.contains("expired 2021-02-03T00:00:00Z"), "{}", late.out);
    assert!(
        late.json()["tls"]["days_left"].as_i64().unwrap() < -1_000,
        "{}",
        late.out
    );
}

/// A TLS server whose certificate has expired: its port and the certificate.
async fn expired() -> (u16, String) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 2, 3);
    params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let chain = vec![certificate.der().clone()];
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It is refused, which is what the test is about.
            drop(acceptor.accept(stream).await);
        }
    });
    (port, certificate.pem())
}

#[tokio::test]
async fn what_speaks_no_tls_is_4_and_what_says_nothing_is_7() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://127.0.0.1:{}/ws", plain.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let probed = probe(&[&url, "--token", "t", "--insecure", "--json"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (4, "tls"), "{}", probed.out);
    assert!(probed.out.contains("no TLS is spoken there"), "{}", probed.out);
    // The kernel accepts, nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://127.0.0.1:{}/ws", silent.local_addr().unwrap().port());
    let probed = probe(&[&url, "--token", "t", "--insecure", "--json", "--timeout", "500ms"]).await;
    assert_eq!((probed.code, probed.stage().as_str()), (7, "tls"), "{}", probed.out);
    assert!(probed.out.contains("within 500ms"), "{}", probed.out);
}

#[tokio::test]
async fn bad_arguments_are_2_and_unknown_to_nagios() {
    for words in [
        &[][..],
        &["https://localhost/ws", "--token", "t"],
        &["wss://localhost/ws?token=canary", "--token", "t"],
        &["wss://user:canary@localhost/ws", "--token", "t"],
        &["wss://localhost/ws", "wss://localhost/ws", "--token", "t"],
        &["wss://localhost/ws", "--token", "t", "--room", "a*"],
        &["wss://localhost/ws", "--token", "t", "--resolve", "x"],
        &["wss://localhost/ws", "--token", "t", "--timeout", "0s"],
        &["wss://localhost/ws", "--token", "t", "--tokne", "canary"],
        &["wss://localhost/ws", "--token-file", "/nonexistent/probe.jwt"],
        &["wss://localhost/ws", "--json", "--nagios"],
        &["wss://localhost/ws", "--warn", "1s"],
        &["--listen", ":0"],
        &["--listen", "nowhere", "wss://localhost/ws", "--token", "t"],
        &["--listen", ":0", "--config", "/nonexistent/probe.toml"],
    ] {
        let probed = probe(words).await;
        let expected = if words.contains(&"--nagios") { 3 } else { 2 };
        assert_eq!(probed.code, expected, "{words:?}: {}{}", probed.out, probed.err);
        assert!(
            !probed.err.is_empty() && !probed.err.contains("canary"),
            "{words:?}: {}",
            probed.err
        );
    }
}
