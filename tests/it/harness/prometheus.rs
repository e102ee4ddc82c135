//! The real Prometheus, scraping one node.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::process::Process;
use super::request::{Answer, read_body, read_head};
use super::within;

pub struct Prometheus {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes `target` every second. It ends with the test.
    pub async fn scraping(target: SocketAddr) -> Self {
        Self::with(&format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: conclave, static_configs: [{{targets: ['{target}']}}]}}]\n"
        ))
        .await
    }

    /// With a configuration of the test's own.
    pub async fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a file");
        // It knows no port 0, and one that was free a moment ago may be somebody else's by now.
        for _ in 0..5 {
            let address = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let mut command = Command::new("prometheus");
            command.current_dir(folder.path()).args([
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--log.level=warn",
                &format!("--web.listen-address={address}"),
            ]);
            let process = Process::start(&mut command);
            if is_ready(address, &process).await {
                return Self {
                    address,
                    process,
                    _folder: folder,
                };
            }
        }
        panic!("Prometheus found no port");
    }

    /// Asks until there is an answer that `is_it`; its first value.
    pub async fn query(&self, query: &str, is_it: impl Fn(f64) -> bool) -> f64 {
        let asked = async {
            loop {
                let answer = self.ask(query).await;
                let answer: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
                assert_ne!(answer["status"], "error", "{query}: {answer}");
                let value = answer["data"]["result"][0]["value"][1].as_str();
                match value.and_then(|value| value.parse().ok()) {
                    Some(value) if is_it(value) => return value,
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        within(query, asked).await
    }

    async fn ask(&self, query: &str) -> Answer {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let asked = get(self.address, &format!("/api/v1/query?query={query}")).await;
        asked.unwrap_or_else(|error| panic!("{error}: {:?}", self.process.seen()))
    }
}

/// Waits until it serves; false if it ends instead.
async fn is_ready(address: SocketAddr, process: &Process) -> bool {
    within("Prometheus", async {
        while process.seen().exit.is_none() {
            if get(address, "/-/ready").await.is_ok_and(|answer| answer.status == 200) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    })
    .await
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // Somebody else on that port may end the connection without a word.
    stream.readable().await?;
    if stream.peek(&mut [0]).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (mut answer, mut body) = read_head(&mut stream).await;
    read_body(&mut answer, &mut stream, &mut body).await;
    Ok(answer)
}
