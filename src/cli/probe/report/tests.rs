use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::cli::paint::Paint;
use crate::cli::probe::stage::{Kind, Report, Stage, Step, Trouble};

fn step(stage: Stage, ms: u64, detail: &str) -> Step {
    Step {
        stage,
        took: Duration::from_millis(ms),
        detail: detail.to_owned(),
    }
}

fn certificate(not_after: i64) -> Certificate {
    Certificate {
        names: vec!["chat.example.com".to_owned()],
        issuer: "Example CA".to_owned(),
        not_after,
        not_before: 0,
        verified: true,
    }
}

fn passed() -> Report {
    Report {
        target: "wss://chat.example.com/ws".to_owned(),
        steps: vec![
            step(Stage::Dns, 2, "192.0.2.7"),
            step(Stage::Tls, 30, "TLSv1.3"),
            step(Stage::Ping, 1, ""),
        ],
        took: Duration::from_millis(40),
        certificate: Some(certificate(now() + 10 * 86_400 + 60)),
        tls_version: Some("TLSv1.3".to_owned()),
        is_probe: true,
        ..Report::default()
    }
}

fn failed() -> Report {
    let trouble = Trouble::new(Kind::Tls, "the certificate | expired\u{1b}[31m", "renew it");
    Report {
        steps: vec![step(Stage::Dns, 2, "192.0.2.7"), step(Stage::Tls, 30, "")],
        failed: Some((Stage::Tls, trouble)),
        certificate: Some(certificate(now() - 3 * 86_400 + 60)),
        ..passed()
    }
}

#[test]
fn a_table_for_people() {
    assert_eq!(
        table::of(&passed(), Paint::off()),
        "wss://chat.example.com/ws\n\
         \x20 dns              2.0 ms  192.0.2.7\n\
         \x20 tls             30.0 ms  TLSv1.3, chat.example.com from Example CA, 10 days left\n\
         \x20 ping             1.0 ms\n\
         ok in 40.0 ms\n"
    );
    assert_eq!(table::trouble(&passed()), "");
    let text = table::of(&failed(), Paint::off());
    assert!(text.ends_with("  tls             30.0 ms   failed\n"), "{text}");
    assert_eq!(
        table::trouble(&failed()),
        "error: tls: the certificate | expired [31m\n  help: renew it\n",
        "what could move a cursor is gone"
    );
}

#[test]
fn an_object_for_scripts() {
    let object: Value = serde_json::from_str(&json::of(&passed())).unwrap();
    assert_eq!((&object["ok"], &object["exit_code"]), (&true.into(), &0.into()));
    assert_eq!(object["stages"][1]["stage"], "tls");
    assert_eq!(object["tls"]["days_left"], 10);
    assert_eq!(object.get("failed"), None);
    let object: Value = serde_json::from_str(&json::of(&failed())).unwrap();
    assert_eq!((&object["ok"], &object["exit_code"]), (&false.into(), &4.into()));
    assert_eq!(object["failed"]["stage"], "tls");
    assert_eq!(
        (&object["stages"][0]["ok"], &object["stages"][1]["ok"]),
        (&true.into(), &false.into())
    );
    assert_eq!(object["tls"]["days_left"], -3);
}

#[test]
fn a_line_for_nagios() {
    let second = Duration::from_secs(1);
    let ms = |ms| Some(Duration::from_millis(ms));
    let check = |report: &Report, warn, crit| nagios::of(report, warn, crit, 10 * second);
    let (line, code) = check(&passed(), ms(100), ms(200));
    assert_eq!(code, 0);
    assert_eq!(
        line,
        "CONCLAVE OK - wss://chat.example.com/ws all stages in 40.0 ms, certificate 10 days left | \
         time=0.040000s;0.1;0.2;0;10 dns=0.002000s tls=0.030000s ping=0.001000s certificate_days=10"
    );
    for (warn, crit, expected) in [
        (ms(40), None, 1),
        (ms(10), ms(40), 2),
        (ms(41), ms(41), 0),
        (None, None, 0),
    ] {
        assert_eq!(check(&passed(), warn, crit).1, expected);
    }
    let (line, code) = check(&failed(), None, None);
    assert_eq!(code, 2);
    assert!(
        line.starts_with("CONCLAVE CRITICAL - wss://chat.example.com/ws tls: the certificate / expired"),
        "{line}"
    );
    assert_eq!(
        line.matches('|').count(),
        1,
        "a bar begins the performance data: {line}"
    );
}

#[test]
fn promtool_finds_nothing_to_object_to() {
    let both = [
        prometheus::of(&passed(), None),
        prometheus::of(&failed(), Some("wss://a\"\\\n/ws")),
    ];
    for text in both {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed; it comes with the package `prometheus`");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    }
    let text = prometheus::of(&failed(), None);
    assert!(text.contains("conclave_probe_success 0\n"), "{text}");
    assert!(text.contains("conclave_probe_failed{stage=\"tls\"} 1\n"), "{text}");
    assert!(text.contains("conclave_probe_failed{stage=\"ping\"} 0\n"), "{text}");
}
