use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::*;
use crate::config::AdminToken;
use crate::http::health::Health;
use crate::runtime::tests::bare_node;

const TOKEN: &str = "canary7Kq-0123456789abcdef0123456789abcdef";

struct Running {
    address: SocketAddr,
    health: Health,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Metrics and health only.
    fn start() -> Self {
        Self::with(&[])
    }

    /// With a page for whoever has one of these.
    fn with(tokens: &[&str]) -> Self {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listen.local_addr().unwrap();
        let (node, folder) = bare_node(|config| {
            let token = |secret: &&str| AdminToken {
                name: "ann".to_owned(),
                secret: (*secret).into(),
            };
            config.admin.tokens = tokens.iter().map(token).collect();
        });
        let (health, stop) = (node.health.clone(), CancellationToken::new());
        let thread = spawn(listen, node, Vec::new(), stop.clone()).unwrap();
        Self {
            address,
            health,
            stop,
            thread: Some(thread),
            _folder: folder,
        }
    }

    fn send(&self, request: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        String::from_utf8(self.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn metrics_and_health_are_served_and_nothing_else() {
    let admin = Running::start();
    let metrics = admin.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"));
    assert!(metrics.contains("conclave_build_info{"));
    assert!(admin.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(admin.get("/readyz").starts_with("HTTP/1.1 503"));
    admin.health.ready();
    assert!(admin.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(admin.get("/").contains("/metrics"));
    assert!(admin.get("/debug").starts_with("HTTP/1.1 404"));
    assert!(
        admin
            .send("POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
            .starts_with(b"HTTP/1.1 405")
    );
}

#[test]
fn metrics_are_compressed_for_who_asks() {
    let admin = Running::start();
    let answer = admin.send("GET /metrics HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
    let head = String::from_utf8_lossy(&answer);
    assert!(head.contains("content-encoding: gzip"), "{}", &head[..200]);
}

#[test]
fn an_endless_head_is_refused() {
    let admin = Running::start();
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(HEADER_BYTES_MAX));
    let mut stream = TcpStream::connect(admin.address).unwrap();
    // The server may answer and close before it has all of it.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    assert!(admin.get("/livez").starts_with("HTTP/1.1 200"));
}

#[test]
fn silent_callers_do_not_keep_others_out() {
    let admin = Running::start();
    let silent: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(admin.address).unwrap())
        .collect();
    let started = Instant::now();
    assert!(admin.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(started.elapsed() < HEAD_TIMEOUT + Duration::from_secs(3));
    drop(silent);
}

/// A request to the page or the API: its status and the whole answer.
fn ask(running: &Running, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    let answer = String::from_utf8(running.send(&format!("{request}\r\n{body}"))).unwrap();
    assert!(!answer.contains(TOKEN), "an answer shows the token");
    (answer[9..12].parse().unwrap(), answer)
}

const HOST: &str = "host: localhost";

#[test]
fn without_tokens_there_is_no_page_and_no_api() {
    let running = Running::start();
    let bearer = format!("authorization: Bearer {TOKEN}");
    for path in ["/sign-in", "/api/overview", "/admin.js"] {
        assert_eq!(ask(&running, "GET", path, &[HOST, &bearer], "").0, 404, "{path}");
    }
}

#[test]
fn metrics_and_health_stay_open_and_the_rest_is_guarded() {
    let running = Running::with(&[TOKEN]);
    for path in ["/metrics", "/livez"] {
        assert_eq!(ask(&running, "GET", path, &["host: evil.example"], "").0, 200, "{path}");
    }
    for path in ["/", "/admin.js", "/api/overview", "/nowhere"] {
        assert_eq!(ask(&running, "GET", path, &["host: evil.example"], "").0, 403, "{path}");
        let (status, answer) = ask(&running, "GET", path, &[HOST], "");
        assert_eq!(status, 401, "{path}");
        assert!(
            answer.contains("content-security-policy: default-src 'none'"),
            "{answer}"
        );
        assert!(answer.contains("cache-control: no-store"), "{answer}");
        assert!(!answer.contains("access-control"), "{answer}");
    }
    let bearer = format!("authorization: Bearer {TOKEN}");
    assert_eq!(ask(&running, "GET", "/", &[HOST, &bearer], "").0, 200);
    assert_eq!(ask(&running, "GET", "/nowhere", &[HOST, &bearer], "").0, 404);
    assert_eq!(ask(&running, "GET", "/", &["host: evil.example", &bearer], "").0, 403);
    assert_eq!(ask(&running, "POST", "/sign-out", &[HOST, &bearer], "").0, 403);
    let counted = running.get("/metrics");
    assert!(
        counted.contains("conclave_admin_requests_total{action=\"page\",result=\"denied\"} 3"),
        "{counted}"
    );
}

#[test]
fn the_form_gives_a_cookie_that_only_this_page_can_use() {
    let running = Running::with(&[TOKEN]);
    let form = "content-type: application/x-www-form-urlencoded";
    let wish = format!("token={TOKEN}");
    for elsewhere in [
        "origin: http://localhost:3000",
        "origin: null",
        "sec-fetch-site: cross-site",
    ] {
        let (status, answer) = ask(&running, "POST", "/sign-in", &[HOST, form, elsewhere], &wish);
        assert_eq!(status, 403, "{elsewhere}");
        assert!(!answer.contains("set-cookie"));
    }
    let (status, answer) = ask(&running, "POST", "/sign-in", &[HOST, form], "token=guess");
    assert!(status == 401 && answer.contains("no token of"), "{answer}");
    assert_eq!(ask(&running, "POST", "/sign-in", &[HOST, form], "x=y").0, 400);
    let long = format!("token={}", "x".repeat(BODY_BYTES_MAX));
    assert_eq!(ask(&running, "POST", "/sign-in", &[HOST, form], &long).0, 400);
    let (status, answer) = ask(&running, "POST", "/sign-in", &[HOST, form], &wish);
    assert_eq!(status, 303, "{answer}");
    let set = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict; Max-Age=43200"), "{set}");
    let cookie = format!("cookie: {}", set.split(';').next().unwrap());
    assert_eq!(ask(&running, "GET", "/", &[HOST, &cookie], "").0, 200);
    assert_eq!(ask(&running, "POST", "/sign-out", &[HOST, &cookie], "").0, 403);
    assert_eq!(
        ask(&running, "POST", "/sign-out", &[HOST, &cookie, "conclave-admin: 1"], "").0,
        204
    );
    assert_eq!(ask(&running, "GET", "/", &[HOST, &cookie], "").0, 401);
}
