//! For a script: one object on one line.

use serde_json::{Value, json};

use super::now;
use crate::cli::probe::dial::when;
use crate::cli::probe::stage::Report;

/// `{"ok":true,"exit_code":0,"target":…,"seconds":…,"stages":[{"stage":"dns","seconds":…,"ok":true,"detail":…}],…}`
pub fn of(report: &Report) -> String {
    let failed = report.failed.as_ref();
    let last = report.steps.len().saturating_sub(1);
    let stages = report.steps.iter().enumerate().map(|(at, step)| {
        let passed = at != last || failed.is_none();
        json!({
            "stage": step.stage.word(), "seconds": step.took.as_secs_f64(), "ok": passed, "detail": step.detail,
        })
    });
    let tls = report.certificate.as_ref().map(|certificate| {
        json!({
            "version": report.tls_version, "verified": certificate.verified, "names": certificate.names,
            "issuer": certificate.issuer, "not_after": when(Some(certificate.not_after)),
            "days_left": certificate.days_left(now()),
        })
    });
    let mut object = json!({
        "ok": failed.is_none(), "exit_code": report.exit_code(), "target": report.target,
        "seconds": report.took.as_secs_f64(), "stages": stages.collect::<Vec<Value>>(), "tls": tls,
        "room": report.room, "session": report.session, "kept": report.kept, "probe_token": report.is_probe,
    });
    if let Some((stage, trouble)) = failed {
        object["failed"] = json!({"stage": stage.word(), "error": trouble.what, "help": trouble.help});
    }
    object.to_string()
}
