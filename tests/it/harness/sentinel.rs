//! A master, a replica and three Sentinels that elect in about a second.

use std::process::Command;

use redis::Value;
use tempfile::TempDir;

use super::ports::Port;
use super::process::Process;
use super::redis::{Builder, Redis, redis};
use super::within;

/// The name under which the Sentinels know the master.
pub const MASTER: &str = "rooms";

pub struct Sentinels {
    watchers: Vec<Watcher>,
    /// The first one began as the master; either may be dead, frozen or demoted.
    pub servers: [Redis; 2],
}

struct Watcher {
    process: Process,
    port: Port,
    _folder: TempDir,
}

impl Sentinels {
    /// Quorum 2, down after 500 ms.
    pub async fn start() -> Self {
        Self::with(|server| server).await
    }

    /// As [`Sentinels::start`], with more options for both servers.
    pub async fn with(options: impl Fn(Builder) -> Builder) -> Self {
        let master = options(redis()).start().await;
        let of = format!("127.0.0.1 {}", master.port());
        let replica = options(redis()).option("replicaof", &of).start().await;
        replica
            .until(&["ROLE"], |role| words(role).iter().any(|word| word == "connected"))
            .await;
        let mut watchers = Vec::new();
        for _ in 0..3 {
            watchers.push(Watcher::start(master.port()).await);
        }
        let sentinels = Self {
            watchers,
            servers: [master, replica],
        };
        sentinels.agreed().await;
        sentinels
    }

    /// For `backplane.url`.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = (self.watchers.iter())
            .map(|watcher| format!("127.0.0.1:{}", watcher.port.number))
            .collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// Which of [`Sentinels::servers`] the first Sentinel takes for the master.
    pub async fn master(&self) -> usize {
        let answer = (self.watchers[0]
            .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER])
            .await)
            .expect("an answer");
        let port = words(&answer)[1].clone();
        let known = |server: &Redis| server.port().to_string() == port;
        self.servers.iter().position(known).expect("one of ours")
    }

    /// Waits until every Sentinel names `server`, and it says itself that it is the master.
    pub async fn promoted(&self, server: usize) {
        let port = self.servers[server].port().to_string();
        for watcher in &self.watchers {
            watcher
                .until(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER], |answer| {
                    words(answer).get(1) == Some(&port)
                })
                .await;
        }
        self.servers[server]
            .until(&["ROLE"], |role| words(role)[0] == "master")
            .await;
    }

    /// An orderly change of the master, asked for by an operator. Waits for it.
    pub async fn fail_over(&self) {
        let next = 1 - self.master().await;
        let asked = self.watchers[0]
            .until(&["SENTINEL", "FAILOVER", MASTER], |_| true)
            .await;
        assert_eq!(asked, Value::Okay);
        self.promoted(next).await;
    }

    /// Waits until `server` follows the other one and has caught up with it.
    pub async fn follows(&self, server: usize) {
        self.servers[server]
            .until(&["ROLE"], |role| {
                let role = words(role);
                role[0] == "slave" && role.iter().any(|word| word == "connected")
            })
            .await;
    }

    /// Waits until each Sentinel knows the other two and the replica, without which it elects nobody.
    pub async fn agreed(&self) {
        for watcher in &self.watchers {
            watcher
                .until(&["SENTINEL", "MASTER", MASTER], |answer| {
                    let words = words(answer);
                    let is = |name: &str, value: &str| words.chunks(2).any(|pair| pair == [name, value]);
                    is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
                })
                .await;
            watcher.until(&["SENTINEL", "CKQUORUM", MASTER], |_| true).await;
        }
    }

    /// SIGKILL of one Sentinel.
    pub fn kill_sentinel(&mut self) {
        self.watchers.pop();
    }
}

impl Watcher {
    async fn start(master: u16) -> Self {
        let (port, folder) = (Port::free(), tempfile::tempdir().expect("a folder"));
        let config = format!(
            "bind 127.0.0.1\nport {}\nlogfile \"\"\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n",
            port.number
        );
        std::fs::write(folder.path().join("sentinel.conf"), config).expect("a file");
        let mut command = Command::new("redis-server");
        command.args(["sentinel.conf", "--sentinel"]).current_dir(folder.path());
        let process = Process::start(&mut command);
        process.said("monitor master").await;
        Self {
            process,
            port,
            _folder: folder,
        }
    }

    async fn ask(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port.number))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut connection = client.get_multiplexed_async_connection().await?;
        command.query_async(&mut connection).await
    }

    async fn until(&self, words: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(10));
        within(&format!("a Sentinel's answer to {words:?}"), async {
            loop {
                pace.tick().await;
                assert!(self.process.seen().exit.is_none(), "a Sentinel has ended");
                if let Ok(value) = self.ask(words).await
                    && wanted(&value)
                {
                    return value;
                }
            }
        })
        .await
    }
}

/// The texts and numbers of an answer, in order.
pub fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(words).collect(),
        Value::BulkString(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
        Value::SimpleString(text) => vec![text.clone()],
        Value::Int(number) => vec![number.to_string()],
        _ => Vec::new(),
    }
}
