//! Under systemd: listening sockets that outlive the node, and what the service manager is told.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::node::Builder;
use crate::harness::ports::Port;
use crate::harness::process::Process;
use crate::harness::tls::{Certificate, Tls};
use crate::harness::{self, Ask, PATIENCE, needs, token, within};

/// People who come one after the other, each until the first word of the node, or longer.
struct Visitors {
    welcomed: Arc<AtomicUsize>,
    coming: JoinSet<()>,
    stop: tokio_util::sync::CancellationToken,
}

impl Visitors {
    fn come(listener: &TcpListener, certificate: &Certificate) -> Self {
        let (welcomed, stop) = (
            Arc::<AtomicUsize>::default(),
            tokio_util::sync::CancellationToken::new(),
        );
        let mut coming = JoinSet::new();
        for number in 0..6 {
            let tls = Tls::new(listener.local_addr().unwrap(), certificate);
            let (welcomed, stop) = (Arc::clone(&welcomed), stop.clone());
            coming.spawn(async move {
                while !stop.is_cancelled() {
                    let token = token::sign(&token::claims(&format!("visitor-{number}")));
                    let visit = Ask::new(tls.clone(), "GET", "/ws").upgrade().query_token(&token);
                    // Panics unless it is accepted, shaken hands with, upgraded and greeted.
                    let client = visit.open().await.welcomed().await;
                    welcomed.fetch_add(1, Ordering::SeqCst);
                    drop(client);
                }
            });
        }
        Self { welcomed, coming, stop }
    }

    /// Waits until so many more have been welcomed; fails as soon as one was not.
    async fn more(&mut self, count: usize) {
        let until = self.welcomed.load(Ordering::SeqCst) + count;
        within("visitors", async {
            while self.welcomed.load(Ordering::SeqCst) < until {
                tokio::select! {
                    Some(ended) = self.coming.join_next() => ended.expect("every visitor is welcomed"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        })
        .await;
    }

    async fn go(mut self) {
        self.stop.cancel();
        while let Some(ended) = within("the last visitors", self.coming.join_next()).await {
            ended.expect("every visitor is welcomed");
        }
    }
}

fn node(certificate: &Certificate, listener: &TcpListener, runtime: &str) -> Builder {
    harness::node()
        .runtime(runtime)
        .certificate(certificate.clone())
        .set("drain.time", "2s")
        .set("limits.connections_per_address", "0")
        .inherits(listener)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_across_restarts() {
    for runtime in ["per-core", "shared"] {
        let certificate = Certificate::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut first = node(&certificate, &listener, runtime).start().await;
        assert_eq!(first.listen, listener.local_addr().unwrap(), "not server.listen");
        let mut visitors = Visitors::come(&listener, &certificate);
        for _ in 0..2 {
            let mut staying = Vec::new();
            for number in 0..4 {
                staying.push(first.client(&format!("u{number}")).await);
            }
            visitors.more(20).await;
            first.terminate("TERM");
            for client in &mut staying {
                let closing = client.until("closing").await;
                assert_eq!(closing["reason"], "restart");
                client.expect_close(1012, "restart").await;
                client.send_bytes(&harness::frames::close(1012, "")).await;
            }
            drop(staying);
            within("the end", async {
                while first.process.seen().exit.is_none() {
                    visitors.more(0).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            assert_eq!(first.wait_exit().await.code(), Some(0), "{runtime}");
            // Whoever comes now finds nobody, and waits.
            let waiting = Tls::new(listener.local_addr().unwrap(), &certificate);
            let token = token::sign(&token::claims("patient"));
            let waiting = tokio::spawn(async move {
                let visit = Ask::new(waiting, "GET", "/ws").upgrade().query_token(&token);
                drop(visit.open().await.welcomed().await);
            });
            first = node(&certificate, &listener, runtime).start().await;
            within("who waited", waiting).await.expect("a welcome");
            visitors.more(20).await;
        }
        visitors.go().await;
    }
}

/// The socket of a service manager, and what it was told, one datagram at a time.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// The next datagram with this line.
    fn told(&self, line: &str) -> Vec<String> {
        loop {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).expect("the service manager is told");
            let lines: Vec<_> = std::str::from_utf8(&bytes[..length])
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
            if lines.iter().any(|other| other == line) {
                return lines;
            }
        }
    }
}

fn number(lines: &[String], name: &str) -> u64 {
    let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found
        .unwrap_or_else(|| panic!("no {name} in {lines:?}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_is_told() {
    for runtime in ["per-core", "shared"] {
        let manager = Manager::new();
        let node = harness::node()
            .runtime(runtime)
            .set("drain.time", "5s")
            .environment("NOTIFY_SOCKET", &manager.path())
            .environment("WATCHDOG_USEC", "400000")
            .start()
            .await;
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        manager.told("READY=1");
        manager.told("STATUS=serving 0 clients");
        for _ in 0..3 {
            manager.told("WATCHDOG=1");
        }
        node.terminate("HUP");
        let reloading = manager.told("RELOADING=1");
        let at_seconds = number(&reloading, "MONOTONIC_USEC") as f64 / 1e6;
        assert!((at_seconds - uptime).abs() < 120.0, "{at_seconds} {uptime}");
        manager.told("READY=1");
        let _client = node.client("ann").await;
        node.terminate("TERM");
        let stopping = manager.told("STOPPING=1");
        assert!(
            stopping.contains(&"STATUS=draining 1 clients".to_owned()),
            "{stopping:?}"
        );
        assert!(number(&stopping, "EXTEND_TIMEOUT_USEC") >= 5_000_000);
        // A node that drains is watched on.
        manager.told("WATCHDOG=1");
        assert_eq!(node.wait_exit().await.code(), Some(0), "{runtime}");
    }
}

#[tokio::test]
async fn what_is_handed_over_wrongly_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args([
            "-c",
            "export LISTEN_FDS=1 LISTEN_PID=$$; exec 3< /dev/null; exec \"$0\" serve",
            env!("CARGO_BIN_EXE_conclave"),
        ])
        .env("CONCLAVE_CONFIG", config(folder.path(), "127.0.0.1:0"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("LISTEN_FDS") && said.contains("help:"), "{said}");
}

/// A configuration for a node that is started otherwise than by the harness.
fn config(folder: &Path, listen: &str) -> String {
    let certificate = Certificate::new();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("tls.crt", &certificate.pem);
    write("tls.key", &certificate.key_pem);
    write("secret", std::str::from_utf8(token::SECRET).unwrap());
    let at = folder.display();
    let text = format!(
        "[server]\nlisten = \"{listen}\"\nadmin_listen = \"127.0.0.1:0\"\nthreads = 2\n\
         [tls]\ncertificate = \"{at}/tls.crt\"\nkey = \"{at}/tls.key\"\n\
         [[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"{at}/secret\"\n"
    );
    write("conclave.toml", &text);
    folder.join("conclave.toml").display().to_string()
}

/// systemd's own hand: both sockets, by name, opened before there is a node.
#[tokio::test]
async fn systemd_starts_it_for_the_first_who_comes() {
    needs("systemd-socket-activate", "systemd");
    let (main, admin) = (Port::free(), Port::free());
    let [main, admin] = [main.number, admin.number].map(|port| format!("127.0.0.1:{port}"));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command
        .args([
            "-l",
            &admin,
            "-l",
            &main,
            "--fdname=admin:main",
            env!("CARGO_BIN_EXE_conclave"),
            "serve",
            "--config",
        ])
        .arg(config(folder.path(), "127.0.0.1:1"));
    let process = Process::start(&mut command);
    let answer = within("an answer", async {
        loop {
            // It listens a moment after it was started.
            if let Ok(mut stream) = tokio::net::TcpStream::connect(&admin).await {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.said(&format!("\"listen\":\"{main}\"")).await;
    assert!(tokio::net::TcpStream::connect(&main).await.is_ok());
    process.signal("TERM");
    assert_eq!(process.wait_exit().await.code(), Some(0));
}
