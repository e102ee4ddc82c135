//! `conclave check-config` as an operator runs it: what is risky, where it was written, what to do, and the exit code.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness;
use crate::harness::tls::Certificate;

const RISKY: &str = r#"[server]
listen = "127.0.0.1:8443"
page = true
[tls]
certificate = "tls.crt"
key = "tls.key"
[heartbeat]
interval = "2m"
[drain]
time = "60s"
[backplane]
kind = "redis"
url = "redis://10.0.0.7"
[[auth.keys]]
algorithm = "HS256"
secret_file = "secret"
"#;

/// A folder with this configuration and what it names.
fn place(toml: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::new();
    for (name, text) in [
        ("conclave.toml", toml),
        ("tls.crt", &certificate.pem),
        ("tls.key", &certificate.key_pem),
        ("secret", "this-is-our-company-jwt-secret-2026"),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    folder
}

fn check(folder: &Path, extra: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["check-config", "--config", "conclave.toml"])
        .args(extra)
        .env_clear()
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn risks_are_told_with_place_and_remedy_and_fail_only_when_asked() {
    let folder = place(RISKY);
    let (code, text) = check(folder.path(), &[]);
    assert_eq!(code, Some(0), "{text}");
    for (key, words, line) in [
        ("server.page", "chat room for trials", 3),
        ("heartbeat.interval", "nginx (proxy_read_timeout) 60 s", 8),
        ("drain.time", "what Kubernetes gives by default", 10),
        ("backplane.url", "in the clear", 13),
        ("backplane.url", "without a password", 13),
        ("auth.keys[0].audience", "opens a socket too", 14),
        ("auth.keys[0].secret_file", "a word in it", 16),
    ] {
        let told = text.split("\n\n").any(|problem| {
            problem.contains(&format!("warning: {key}: "))
                && problem.contains(words)
                && problem.contains(&format!("set in conclave.toml line {line}\n"))
                && problem.contains("help: ")
        });
        assert!(told, "{key} {words} {line}\n{text}");
    }
    assert!(text.contains("note: backplane.kept"), "{text}");
    assert!(
        text.contains("7 warnings and 1 note\n") || text.contains("8 warnings and 1 note\n"),
        "{text}"
    );
    assert!(!text.contains("our-company"));
    assert_eq!(check(folder.path(), &["--strict"]).0, Some(64));
    let (code, text) = check(folder.path(), &["--grace-period", "2m"]);
    assert!(code == Some(0) && !text.contains("drain.time"), "{text}");
    let (code, json) = check(folder.path(), &["--json", "--strict"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &answer["ok"]), (Some(64), &Value::Bool(true)));
    let problems = answer["problems"].as_array().unwrap();
    let page = problems.iter().find(|problem| problem["key"] == "server.page").unwrap();
    assert_eq!(page["severity"], "warning");
    assert_eq!(page["set_by"]["line"], 3);
    assert!(page["remedy"].as_str().unwrap().contains("production"));
}

#[test]
fn one_that_nobody_has_to_worry_about_is_ok_and_strictly_so() {
    let folder = place(
        r#"[server]
listen = "127.0.0.1:8443"
[tls]
certificate = "tls.crt"
key = "tls.key"
[limits]
connections = 100
[history]
node_bytes = "1MiB"
[[auth.keys]]
algorithm = "HS256"
secret_file = "secret"
audience = ["conclave"]
"#,
    );
    let secret = "8mC0JY2m0k1lqWcWmVb3R6m0u7R2l3pVt0WfE2cKxk0y5oG4dB1nHs9aZQvTiUjX\n";
    std::fs::write(folder.path().join("secret"), secret).unwrap();
    assert_eq!(check(folder.path(), &["--strict"]), (Some(0), "ok\n".to_owned()));
}

#[tokio::test]
async fn serve_logs_warnings_once_and_no_notes() {
    let node = harness::node().set("server.page", "true").start().await;
    let log = node.log();
    let told: Vec<&Value> = log.iter().filter(|line| line["key"] == "server.page").collect();
    assert_eq!(told.len(), 1, "{log:?}");
    assert_eq!(told[0]["level"], "WARN");
    assert!(
        told[0]["message"]
            .as_str()
            .unwrap()
            .starts_with("configuration: the chat room")
    );
    assert!(told[0]["set_by"].as_str().unwrap().starts_with("conclave.toml:"));
    assert!(told[0]["remedy"].as_str().unwrap().contains("production"));
}
