//! A Redis of the test's own: a child process with a folder and a port that outlive its restarts.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redis::{RedisResult, Value};
use tempfile::TempDir;

use super::ports::Port;
use super::process::Process;
use super::tls::Certificate;
use super::{PATIENCE, needs, within};

/// A server without persistence.
pub fn redis() -> Builder {
    Builder {
        options: Vec::new(),
        certificate: None,
    }
}

pub struct Builder {
    options: Vec<String>,
    certificate: Option<Certificate>,
}

impl Builder {
    /// A line of `redis.conf`; later ones win.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push(format!("{name} {value}"));
        self
    }

    /// An append-only file, `fsync`ed `always`, `everysec` or `no`.
    pub fn aof(self, fsync: &str) -> Self {
        self.option("appendonly", "yes").option("appendfsync", fsync)
    }

    /// A second port with TLS; [`Redis::cli`] stays on the plain one.
    pub fn tls(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Starts it and waits until it accepts connections.
    pub async fn start(self) -> Redis {
        needs("redis-server", "redis-server");
        let (port, folder) = (Port::free(), tempfile::tempdir().expect("a folder"));
        let tls = self.certificate.map(|certificate| (Port::free(), certificate));
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", port.number),
            "daemonize no".to_owned(),
            "logfile \"\"".to_owned(),
            "save \"\"".to_owned(),
            "enable-debug-command local".to_owned(),
            // Copies of snapshots by the test must be whole files.
            "rdb-save-incremental-fsync no".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        if let Some((port, certificate)) = &tls {
            write(folder.path(), "tls.crt", &certificate.pem);
            write(folder.path(), "tls.key", &certificate.key_pem);
            lines.push(format!("tls-port {}", port.number));
            lines.push("tls-cert-file tls.crt\ntls-key-file tls.key\ntls-auth-clients no".to_owned());
        }
        lines.extend(self.options);
        write(folder.path(), "redis.conf", &(lines.join("\n") + "\n"));
        let mut server = Redis {
            process: None,
            password: None,
            port,
            tls,
            folder,
        };
        server.restart().await;
        server
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file");
}

/// A Redis server, which may be dead or frozen at the moment. Killed, by its pid, when dropped.
pub struct Redis {
    process: Option<Process>,
    /// Of the user `default`, once [`Redis::lock`] gave it one.
    password: Option<String>,
    port: Port,
    tls: Option<(Port, Certificate)>,
    folder: TempDir,
}

impl Redis {
    /// Without persistence: a restart begins empty.
    pub async fn start() -> Self {
        redis().start().await
    }

    /// For `backplane.url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number)
    }

    /// `host:port` of the TLS port.
    pub fn tls_address(&self) -> String {
        let (port, _) = self.tls.as_ref().expect("started with `tls`");
        format!("localhost:{}", port.number)
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Its folder: `redis.conf`, `dump.rdb`, `appendonlydir`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// From now on the user `default` needs a password, which [`Redis::cli`] gives. For tests of ACL users.
    pub async fn lock(&mut self, password: &str) {
        self.cli(&["CONFIG", "SET", "requirepass", password]).await;
        self.password = Some(password.to_owned());
        // For the next start, with all users.
        self.cli(&["CONFIG", "REWRITE"]).await;
    }

    /// False once it was killed.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    // Commands

    /// One command on a connection of its own; an error fails the test.
    pub async fn cli(&self, words: &[&str]) -> Value {
        match self.ask(words).await {
            Ok(value) => value,
            Err(error) => panic!("{words:?}: {error}"),
        }
    }

    /// As [`Redis::cli`], for commands that answer with text.
    pub async fn text(&self, words: &[&str]) -> String {
        let value = self.cli(words).await;
        redis::from_redis_value(value).expect("text")
    }

    /// One command, with its error.
    pub async fn ask(&self, words: &[&str]) -> RedisResult<Value> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        within(&format!("{words:?}"), async {
            let mut connection = self.connection().await?;
            command.query_async(&mut connection).await
        })
        .await
    }

    /// A connection that waits as long as a test does.
    pub async fn connection(&self) -> RedisResult<redis::aio::MultiplexedConnection> {
        let url = match &self.password {
            None => self.url(),
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port.number),
        };
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        redis::Client::open(url)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Waits until one command is answered as wanted; asks again after every other answer and every error.
    pub async fn until(&self, words: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        within(&format!("the wanted answer to {words:?}"), async {
            loop {
                pace.tick().await;
                if let Ok(value) = self.ask(words).await
                    && wanted(&value)
                {
                    return value;
                }
            }
        })
        .await
    }

    /// A field of `INFO section`.
    pub async fn info(&self, section: &str, field: &str) -> Option<String> {
        let text = self.text(&["INFO", section]).await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(ToOwned::to_owned)
    }

    // Failures

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, after an orderly end if it still runs, with the data that it had written down.
    pub async fn restart(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal("TERM");
            process.wait_exit().await;
        }
        let mut command = Command::new("redis-server");
        command.arg("redis.conf").current_dir(self.folder.path());
        let process = Process::start(&mut command);
        process.said("Ready to accept connections").await;
        self.process = Some(process);
        // Until then it answers LOADING.
        self.until(&["PING"], |_| true).await;
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn freeze(&self) {
        self.running().signal("STOP");
    }

    /// SIGCONT
    pub fn thaw(&self) {
        self.running().signal("CONT");
    }

    /// What it holds now, for [`Redis::put_back`].
    pub async fn snapshot(&self) -> Vec<u8> {
        self.cli(&["SAVE"]).await;
        std::fs::read(self.folder.path().join("dump.rdb")).expect("SAVE writes it")
    }

    /// Kills it and starts it again with an older state, as if a replica that had got no further took over.
    /// Not with an append-only file.
    pub async fn put_back(&mut self, snapshot: &[u8]) {
        self.kill();
        std::fs::write(self.folder.path().join("dump.rdb"), snapshot).expect("a file");
        self.restart().await;
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it was killed by this test")
    }
}
