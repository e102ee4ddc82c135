//! A node: configuration in a folder of its own, certificate, secret, free ports, and its end with the test.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::metrics::Metrics;
use super::process::{Process, Seen};
use super::request::{Answer, read_body, read_head};
use super::tls::{self, Certificate, Tls};
use super::{Ask, Client, token, within};

/// A page that may connect, on every node of the tests.
pub const ORIGIN: &str = "https://app.example.com";

/// A node with the defaults of the tests: two shards, HS256 with [`token::SECRET`], an empty drain.
pub fn node() -> Builder {
    Builder {
        settings: BTreeMap::new(),
        keys: vec!["algorithm = \"HS256\"\nsecret_file = \"secret\"".to_owned()],
        entries: Vec::new(),
        environment: Vec::new(),
        files: vec![("secret".to_owned(), token::SECRET.to_vec())],
        certificate: Certificate::new(),
        open_files: None,
        inherited: None,
    }
    .set("server.listen", "127.0.0.1:0")
    .set("server.admin_listen", "127.0.0.1:0")
    .set("server.threads", "2")
    .set("tls.certificate", "tls.crt")
    .set("tls.key", "tls.key")
    .set("origin.allow", &format!("[\"{ORIGIN}\"]"))
    .set("drain.grace", "0s")
    .set("drain.time", "0s")
    .set("log.level", "conclave=debug,info")
}

pub struct Builder {
    settings: BTreeMap<String, BTreeMap<String, String>>,
    keys: Vec<String>,
    /// Arrays of tables, by section.
    entries: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    certificate: Certificate,
    open_files: Option<u32>,
    inherited: Option<TcpListener>,
}

impl Builder {
    /// `section.key`; the value is quoted unless it is a number, a boolean or a list.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let (section, key) = key.split_once('.').expect("section.key");
        self.settings
            .entry(section.to_owned())
            .or_default()
            .insert(key.to_owned(), literal(value));
        self
    }

    /// `per-core` or `shared`.
    pub fn runtime(self, kind: &str) -> Self {
        self.set("server.runtime", kind)
    }

    /// The only origin that may connect besides same-origin; more with `.set("origin.allow", "[…]")`.
    pub fn origin(self, origin: &str) -> Self {
        self.set("origin.allow", &format!("[\"{origin}\"]"))
    }

    /// One more `[[auth.keys]]`, as the lines of its table.
    pub fn key(mut self, table: &str) -> Self {
        self.keys.push(table.to_owned());
        self
    }

    /// One more `[[rooms]]`: its pattern, and the other lines of its table.
    pub fn class(mut self, pattern: &str, lines: &str) -> Self {
        let table = format!("pattern = \"{pattern}\"\n{lines}");
        self.entries.push(("rooms".to_owned(), table));
        self
    }

    /// This `[[auth.keys]]` instead of all others.
    pub fn only_key(mut self, table: &str) -> Self {
        self.keys = vec![table.to_owned()];
        self
    }

    /// One more `[[section]]`, as the lines of its table.
    pub fn entry(mut self, section: &str, table: &str) -> Self {
        self.entries.push((section.to_owned(), table.to_owned()));
        self
    }

    /// No `[[auth.keys]]` at all.
    pub fn no_keys(mut self) -> Self {
        self.keys.clear();
        self
    }

    /// A file in the node's folder, which is also where it runs.
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = certificate;
        self
    }

    /// `ulimit -n`, soft and hard.
    pub fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// Hands it a listening socket as systemd does: descriptor 3, named `main`.
    pub fn inherits(mut self, socket: &TcpListener) -> Self {
        self.inherited = Some(socket.try_clone().expect("a descriptor"));
        self
    }

    /// Starts it and waits until it says that it is ready.
    pub async fn start(self) -> Node {
        let certificate = self.certificate.clone();
        let (folder, process) = self.spawn();
        let ready = process
            .wait("`ready`", |seen| seen.stdout.iter().find_map(|line| ready(line)))
            .await;
        Node {
            listen: ready.0,
            admin: ready.1,
            certificate,
            name: "localhost".to_owned(),
            process,
            folder,
        }
    }

    /// Starts one that is expected to give up, and waits for that.
    pub async fn fail(self) -> (ExitStatus, Seen) {
        let (_folder, process) = self.spawn();
        let exit = process.wait_exit().await;
        (exit, process.seen())
    }

    fn spawn(self) -> (TempDir, Process) {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| write_private(&folder.path().join(name), bytes);
        write("conclave.toml", self.config().as_bytes());
        write("tls.crt", self.certificate.pem.as_bytes());
        write("tls.key", self.certificate.key_pem.as_bytes());
        for (name, bytes) in &self.files {
            write(name, bytes);
        }
        let binary = env!("CARGO_BIN_EXE_conclave");
        // `exec`, so that the pid is the node's.
        let shell = |before: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{before} && exec \"$0\" \"$@\""), binary]);
            shell
        };
        let mut command = match (self.open_files, &self.inherited) {
            (None, None) => Command::new(binary),
            (Some(most), _) => shell(&format!("ulimit -n {most}")),
            (None, Some(_)) => shell("exec 3<&0 < /dev/null && export LISTEN_FDS=1 LISTEN_FDNAMES=main LISTEN_PID=$$"),
        };
        command
            .args(["serve", "--config", "conclave.toml"])
            .current_dir(folder.path());
        // A developer's own settings are none of ours.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CONCLAVE_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment);
        let stdin = self
            .inherited
            .map_or_else(Stdio::null, |socket| OwnedFd::from(socket).into());
        (folder, Process::start_with(&mut command, stdin))
    }

    fn config(&self) -> String {
        let mut text = String::new();
        for (section, settings) in &self.settings {
            text.push_str(&format!("[{section}]\n"));
            for (key, value) in settings {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        for key in &self.keys {
            text.push_str(&format!("[[auth.keys]]\n{key}\n"));
        }
        for (section, table) in &self.entries {
            text.push_str(&format!("[[{section}]]\n{table}\n"));
        }
        text
    }
}

fn literal(value: &str) -> String {
    let bare = value.parse::<f64>().is_ok() || matches!(value, "true" | "false") || value.starts_with(['[', '"']);
    if bare { value.to_owned() } else { format!("\"{value}\"") }
}

/// Keys and secrets are their owner's, or the node says so on every start.
fn write_private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("a file");
}

/// The addresses in the line that says `ready`.
fn ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "ready" {
        return None;
    }
    let address = |name: &str| line[name].as_str()?.parse().ok();
    // Of a unix socket the test itself knows where it is.
    let listen = match line["listen"].as_str()?.starts_with("unix:") {
        true => SocketAddr::from(([0, 0, 0, 0], 0)),
        false => address("listen")?,
    };
    Some((listen, address("admin_listen")?))
}

/// A node that runs.
pub struct Node {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub certificate: Certificate,
    /// A name in it.
    pub name: String,
    pub process: Process,
    folder: TempDir,
}

impl Node {
    /// Its folder: configuration, certificate, secret.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    // Identity

    /// A good token of `sub`, for an hour.
    pub fn token(&self, sub: &str) -> String {
        self.token_with(&token::claims(sub))
    }

    pub fn token_with(&self, claims: &Value) -> String {
        token::sign(claims)
    }

    // Connections

    pub fn tls(&self) -> Tls {
        Tls::new(self.listen, &self.certificate).named(&self.name)
    }

    pub fn tls_with(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Tls {
        Tls::with_versions(self.listen, &self.certificate, versions)
    }

    /// Bare TCP to the main port.
    pub async fn tcp(&self) -> TcpStream {
        tls::tcp(self.listen, None).await.expect("a TCP connection")
    }

    /// A plain HTTPS request.
    pub fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.tls(), method, path)
    }

    /// A WebSocket request to `/ws`, without a token.
    pub fn socket(&self) -> Ask {
        self.ask("GET", "/ws").upgrade()
    }

    /// A client with a good token that has read its welcome.
    pub async fn client(&self, sub: &str) -> Client {
        self.client_with(&token::claims(sub)).await
    }

    pub async fn client_with(&self, claims: &Value) -> Client {
        self.socket()
            .query_token(&self.token_with(claims))
            .open()
            .await
            .welcomed()
            .await
    }

    // From outside

    /// A request to the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        let mut stream = within("the admin listener", TcpStream::connect(self.admin))
            .await
            .expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut answer, mut body) = read_head(&mut stream).await;
        read_body(&mut answer, &mut stream, &mut body).await;
        answer
    }

    pub async fn metrics(&self) -> Metrics {
        let answer = self.admin("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }

    /// As [`Node::metrics`], of a node that may end meanwhile.
    pub async fn last_metrics(&self) -> Option<Metrics> {
        let asked = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = within("the admin listener", asked).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        (head.starts_with("HTTP/1.1 200") && !head.contains("chunked")).then(|| Metrics::parse(body))
    }

    /// Every line that it has logged so far.
    pub fn log(&self) -> Vec<Value> {
        let seen = self.process.seen();
        seen.stdout
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line.as_str())))
            .collect()
    }

    /// Waits for a log line that `is_it`, those of the past included.
    pub async fn logged(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.process
            .wait(what, |seen| {
                seen.stdout
                    .iter()
                    .filter_map(|line| serde_json::from_str(line).ok())
                    .find(&is_it)
            })
            .await
    }

    // Ends

    /// Sends `TERM`, `INT`, `HUP`, …
    pub fn terminate(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub async fn wait_exit(&self) -> ExitStatus {
        self.process.wait_exit().await
    }
}

/// Reads until the peer ends the connection; what came before.
pub async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset or a missing close_notify ends it as well as a proper end.
    let _ = within("the end of the connection", stream.read_to_end(&mut bytes)).await;
    bytes
}
