use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::*;
use crate::telemetry::metrics::BuildInfo;

struct Admin {
    address: SocketAddr,
    health: Health,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    fn start() -> Self {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listen.local_addr().unwrap();
        let build = BuildInfo {
            version: "1",
            revision: "r",
            rustc: "c",
            backplane: "memory",
        };
        let (health, stop) = (Health::new(), CancellationToken::new());
        let thread = spawn(listen, Metrics::install(build), health.clone(), stop.clone()).unwrap();
        Self {
            address,
            health,
            stop,
            thread: Some(thread),
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

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn metrics_and_health_are_served_and_nothing_else() {
    let admin = Admin::start();
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
    let admin = Admin::start();
    let answer = admin.send("GET /metrics HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
    let head = String::from_utf8_lossy(&answer);
    assert!(head.contains("content-encoding: gzip"), "{}", &head[..200]);
}

#[test]
fn an_endless_head_is_refused() {
    let admin = Admin::start();
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
    let admin = Admin::start();
    let silent: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(admin.address).unwrap())
        .collect();
    let started = Instant::now();
    assert!(admin.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(started.elapsed() < HEAD_TIMEOUT + Duration::from_secs(3));
    drop(silent);
}
