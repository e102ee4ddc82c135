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
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: conclave, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a file");
        // It knows no port 0: one that was free a moment ago.
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
        let this = Self {
            address,
            process: Process::start(&mut command),
            _folder: folder,
        };
        within("Prometheus", async {
            while TcpStream::connect(address).await.is_err() {
                assert!(this.process.seen().exit.is_none(), "{:?}", this.process.seen());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        this
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
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut answer, mut body) = read_head(&mut stream).await;
        read_body(&mut answer, &mut stream, &mut body).await;
        answer
    }
}
