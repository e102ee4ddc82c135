//! `conclave probe --listen`, asked by hand and by a real Prometheus; and the module for blackbox_exporter.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{claims, url};
use crate::harness::process::Process;
use crate::harness::prometheus::Prometheus;
use crate::harness::request::{Answer, read_body, read_head};
use crate::harness::{self, Node, needs, ports::Port, token, within};

struct Exporter {
    address: SocketAddr,
    process: Process,
}

impl Exporter {
    /// With a module `default` for this node, and whatever else the test says.
    async fn of(node: &Node, more: &str) -> Self {
        let folder = node.folder();
        std::fs::write(folder.join("probe.jwt"), token::sign(&claims())).unwrap();
        let url = url(node.listen);
        let config = format!(
            "[modules.default]\ntargets = [\"{url}\"]\ntoken_file = \"probe.jwt\"\nca_file = \"tls.crt\"\n{more}"
        );
        std::fs::write(folder.join("probe.toml"), config).unwrap();
        Self::start(folder, &["--config", "probe.toml"]).await
    }

    async fn start(folder: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
        command
            .args(["probe", "--listen", "127.0.0.1:0"])
            .args(words)
            .current_dir(folder);
        command.env("CONCLAVE_STATE_DIR", "/nonexistent");
        let process = Process::start(&mut command);
        let address = process
            .wait("its address", |seen| {
                let line = seen
                    .stdout
                    .iter()
                    .find_map(|line| line.strip_prefix("probe exporter listens on "));
                line.and_then(|address| address.parse().ok())
            })
            .await;
        Self { address, process }
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        get(self.address, path, headers).await
    }
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = within("the exporter", TcpStream::connect(address))
        .await
        .expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut body) = read_head(&mut stream).await;
    read_body(&mut answer, &mut stream, &mut body).await;
    answer
}

#[tokio::test]
async fn a_target_is_probed_when_it_is_asked_for_and_allowed() {
    let node = harness::node().start().await;
    std::fs::write(node.folder().join("bad.jwt"), "a.b.c").unwrap();
    let more = "[modules.\"bad token\"]\ntargets = [\"wss://localhost:*/ws\"]\ntoken_file = \"bad.jwt\"\nca_file = \"tls.crt\"\n";
    let exporter = Exporter::of(&node, more).await;
    let target = url(node.listen);
    let answer = exporter.get(&format!("/probe?target={target}"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4"),
        "{answer:?}"
    );
    for line in [
        "conclave_probe_success 1\n",
        "conclave_probe_failed{stage=\"auth\"} 0\n",
        "conclave_probe_stage_duration_seconds{stage=\"publish\"} ",
    ] {
        assert!(answer.body.contains(line), "{line}{}", answer.body);
    }
    // A probe that fails is an answer like any other.
    let answer = exporter
        .get(&format!("/probe?module=bad%20token&target={target}"), "")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for line in [
        "conclave_probe_success 0\n",
        "conclave_probe_failed{stage=\"auth\"} 1\n",
        "# auth: closed with 1008 token_malformed\n",
    ] {
        assert!(answer.body.contains(line), "{line}{}", answer.body);
    }
    // A token that is replaced is good at once.
    std::fs::write(node.folder().join("bad.jwt"), token::sign(&claims())).unwrap();
    let answer = exporter
        .get(&format!("/probe?module=bad%20token&target={target}"), "")
        .await;
    assert!(answer.body.contains("conclave_probe_success 1\n"), "{}", answer.body);
    // Not whatever anybody names.
    for (path, status) in [
        ("/probe", 400),
        ("/probe?target=", 400),
        ("/probe?target=http://localhost/", 400),
        ("/probe?target=wss://127.0.0.1:1/ws", 403),
        ("/probe?target=wss://169.254.169.254/ws", 403),
        ("/probe?target=wss://localhost/metrics", 403),
        ("/probe?module=none&target=wss://localhost/ws", 400),
        ("/nowhere", 404),
    ] {
        assert_eq!(exporter.get(path, "").await.status, status, "{path}");
    }
    let metrics = exporter.get("/metrics", "").await.body;
    for line in [
        "{result=\"ok\"} 2\n",
        "{result=\"failed\"} 1\n",
        "{result=\"forbidden\"} 3\n",
        "{result=\"bad_request\"} 4\n",
        "{result=\"busy\"} 0\n",
    ] {
        assert!(
            metrics.contains(&format!("conclave_probe_exporter_requests_total{line}")),
            "{line}{metrics}"
        );
    }
    let page = exporter.get("/", "").await;
    assert!(
        page.body.contains("bad token") && page.body.contains(&target),
        "{page:?}"
    );
    exporter.process.signal("TERM");
    assert_eq!(exporter.process.wait_exit().await.code(), Some(0));
    let said = exporter.process.seen().stderr;
    assert!(
        said.contains("module bad token") && said.contains("failed: auth") && said.contains("passes again"),
        "{said}"
    );
    assert!(!said.contains(&token::sign(&claims())), "{said}");
}

#[tokio::test]
async fn a_probe_ends_before_prometheus_gives_up() {
    // The kernel accepts, nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("wss://127.0.0.1:{}/ws", silent.local_addr().unwrap().port());
    let folder = tempfile::tempdir().unwrap();
    let words = [target.as_str(), "--token", "t", "--insecure", "--timeout", "20m"];
    let exporter = Exporter::start(folder.path(), &words).await;
    let path = format!("/probe?target={target}");
    let answer = exporter.get(&path, "X-Prometheus-Scrape-Timeout-Seconds: 1\r\n").await;
    assert!(
        answer.body.contains("conclave_probe_failed{stage=\"tls\"} 1\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("within 500ms"), "{}", answer.body);
}

#[tokio::test]
async fn a_real_prometheus_scrapes_it() {
    let node = harness::node().start().await;
    let exporter = Exporter::of(&node, "").await;
    let prometheus = Prometheus::with(&format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs:\n\
         - job_name: conclave-probe\n  metrics_path: /probe\n  params: {{module: [default]}}\n\
         \x20 static_configs: [{{targets: ['{}']}}]\n\
         \x20 relabel_configs:\n\
         \x20 - {{source_labels: [__address__], target_label: __param_target}}\n\
         \x20 - {{source_labels: [__param_target], target_label: instance}}\n\
         \x20 - {{target_label: __address__, replacement: '{}'}}\n\
         - job_name: conclave-probe-exporter\n  static_configs: [{{targets: ['{}']}}]\n",
        url(node.listen),
        exporter.address,
        exporter.address
    ))
    .await;
    let labelled = format!("conclave_probe_success{{instance=\"{}\"}}", url(node.listen));
    prometheus.query(&labelled, |value| value == 1.0).await;
    prometheus
        .query("conclave_probe_certificate_expiry_timestamp_seconds - time()", |left| {
            left > 0.0
        })
        .await;
    let ok = "conclave_probe_exporter_requests_total{result=\"ok\"}";
    prometheus.query(ok, |count| count >= 1.0).await;
    // The node goes, and the stage says how.
    node.terminate("TERM");
    node.wait_exit().await;
    prometheus.query("conclave_probe_success", |value| value == 0.0).await;
    prometheus
        .query("conclave_probe_failed{stage=\"tcp\"}", |value| value == 1.0)
        .await;
}

/// The module that is shipped, and what its own comment says that it cannot see.
#[tokio::test]
async fn the_blackbox_module_sees_the_upgrade_and_nothing_behind_it() {
    needs("prometheus-blackbox-exporter", "prometheus-blackbox-exporter");
    let node = harness::node().start().await;
    let folder = node.folder();
    let shipped = include_str!("../../../ops/prometheus/blackbox.yml");
    let trusting = shipped.replace("insecure_skip_verify: false", "ca_file: tls.crt");
    std::fs::write(folder.join("blackbox.yml"), trusting).unwrap();
    let port = Port::free();
    let address: SocketAddr = ([127, 0, 0, 1], port.number).into();
    let mut command = Command::new("sh");
    // It logs to stderr. `exec`, so that the pid is the exporter's.
    command
        .args(["-c", "exec prometheus-blackbox-exporter \"$@\" 2>&1", "sh"])
        .args(["--config.file=blackbox.yml", &format!("--web.listen-address={address}")])
        .current_dir(folder);
    let blackbox = Process::start(&mut command);
    blackbox.said("istening on").await;
    let ask = async |module: &str, path: &str| {
        let target = format!("https://localhost:{}{path}", node.listen.port());
        get(address, &format!("/probe?module={module}&target={target}"), "")
            .await
            .body
    };
    let opened = ask("conclave_socket", "/ws").await;
    for line in [
        "probe_success 1\n",
        "probe_http_status_code 101\n",
        "probe_ssl_earliest_cert_expiry ",
    ] {
        assert!(opened.contains(line), "{line}{opened}");
    }
    // Green, although the server told it to go: it showed no token.
    let metrics = node.metrics().await;
    assert!(metrics.sum("conclave_auth_failures_total", &[("reason", "token_missing")]) >= 1.0);
    assert!(ask("conclave_https", "/ws").await.contains("probe_success 1\n"));
    assert!(ask("conclave_socket", "/nowhere").await.contains("probe_success 0\n"));
    node.terminate("TERM");
    node.wait_exit().await;
    assert!(ask("conclave_socket", "/ws").await.contains("probe_success 0\n"));
}
