use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;

use opentelemetry::trace::TraceId;
use parking_lot::Mutex;
use serde_json::Value;

use super::*;
use crate::telemetry::traces::TraceContext;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that `work` logged.
fn logged(format: LogFormat, level: &str, work: impl FnOnce()) -> String {
    let memory = Memory::default();
    let writer = memory.clone();
    let config = Log {
        format,
        level: level.to_owned(),
    };
    let subscriber = subscriber(&config, None, move || writer.clone(), false).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(memory.0.lock().clone()).unwrap()
}

#[test]
fn a_json_line_has_its_fields_and_the_ids_of_its_trace() {
    let text = logged(LogFormat::Json, "info", || {
        let _current = TraceContext::parse(PARENT).unwrap().attach();
        tracing::info!(reason = "token_expired", code = 1008, "refused");
    });
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    assert_eq!(line["message"], "refused");
    assert_eq!(line["reason"], "token_expired");
    assert_eq!(line["code"], 1008);
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(line["span_id"], "b7ad6b7169203331");
    assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
}

#[test]
fn a_human_line_has_them_too() {
    let text = logged(LogFormat::Human, "info", || {
        tracing::warn!(limit = 3, "no trace");
        let _current = TraceContext::parse(PARENT).unwrap().attach();
        tracing::info!("with trace");
    });
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("  WARN no trace limit=3"), "{text}");
    assert!(
        lines[1].contains("INFO with trace trace_id=0af7651916cd43dd8448eb211c80319c span_id="),
        "{text}"
    );
}

#[test]
fn a_line_cannot_be_forged() {
    for format in [LogFormat::Json, LogFormat::Human] {
        let text = logged(format, "info", || tracing::info!(path = ?"/a\nINFO forged", "refused"));
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn other_crates_are_quiet_unless_asked_for() {
    let work = || {
        tracing::info!(target: "hyper::proto", "noise");
        tracing::warn!(target: "hyper::proto", "trouble");
        tracing::info!(target: "conclave", "ours");
    };
    let text = logged(LogFormat::Json, "info", work);
    assert!(
        !text.contains("noise") && text.contains("trouble") && text.contains("ours"),
        "{text}"
    );
    assert!(logged(LogFormat::Json, "info,hyper=info", work).contains("noise"));
}

#[test]
fn who_sees_requests_never_says_what_it_saw() {
    let text = logged(LogFormat::Json, "trace,h2=trace,hyper::proto=trace", || {
        tracing::debug!(target: "h2::codec", "canary");
        tracing::trace!(target: "hyper::proto", "canary");
        tracing::trace!(target: "h2", "canary");
        tracing::trace!(target: "somebody", "another crate");
        tracing::trace!(target: "conclave", "ours");
    });
    assert!(!text.contains("canary") && text.contains("ours"), "{text}");
    assert!(text.contains("another crate"), "{text}");
}

#[test]
fn an_absent_collector_is_told_a_few_times_only() {
    let text = logged(LogFormat::Json, "info", || {
        for _ in 0..100 {
            tracing::warn!(target: "opentelemetry-otlp", "away");
            tracing::info!(target: "conclave", "ours");
        }
    });
    // Eight, should the loop straddle the turn of a minute.
    assert!((1..=8).contains(&text.matches("away").count()), "{text}");
    assert_eq!(text.matches("ours").count(), 100);
}

#[test]
fn a_panic_is_one_line_and_shows_literals_only() {
    // The hook is the process's; other tests that panic meanwhile log elsewhere, by their thread.
    let before = panics();
    let text = logged(LogFormat::Json, "info", || {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(panics::on_panic));
        let _ = catch_unwind(|| panic!("a literal"));
        let canary = "canary-token".to_owned();
        let _ = catch_unwind(move || panic!("formatted: {canary}"));
        std::panic::set_hook(previous);
    });
    assert!(panics() >= before + 2);
    assert!(
        text.contains("\"panic\":\"a literal\"") && text.contains("tests.rs"),
        "{text}"
    );
    assert!(text.contains("(not shown)") && !text.contains("canary"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_bad_filter_is_refused() {
    let config = Log {
        format: LogFormat::Json,
        level: "conclave=loud".to_owned(),
    };
    let refused = subscriber(&config, None, io::sink, false).err().unwrap().to_string();
    assert!(
        refused.contains("log.level") && refused.contains("conclave=loud"),
        "{refused}"
    );
}

#[test]
fn lines_inside_a_tracing_span_carry_its_ids() {
    let config = crate::config::Traces {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        sample_ratio: 1.0,
        headers: Vec::new(),
    };
    let traces = Traces::start(&config, &crate::telemetry::traces::Service::new("0")).unwrap();
    let memory = Memory::default();
    let writer = memory.clone();
    let log = Log {
        format: LogFormat::Json,
        level: "info".to_owned(),
    };
    let subscriber = subscriber(&log, Some(&traces), move || writer.clone(), false).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("reload").in_scope(|| tracing::info!("inside"));
    });
    let line: Value = serde_json::from_slice(&memory.0.lock()).unwrap();
    assert_ne!(
        TraceId::from_hex(line["trace_id"].as_str().unwrap()).unwrap(),
        TraceId::INVALID
    );
    assert_eq!(line["span"]["name"], "reload", "{line}");
}
