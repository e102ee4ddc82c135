//! For Nagios, Icinga and whoever else runs their plugins: one line with performance data, and their exit codes.

use std::time::Duration;

use super::{days, shown};
use crate::cli::probe::stage::{Report, plain};

const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;

/// The line, and the exit code.
pub fn of(report: &Report, warn: Option<Duration>, crit: Option<Duration>, timeout: Duration) -> (String, u8) {
    let slow = |limit: Option<Duration>| limit.is_some_and(|limit| report.took >= limit);
    let (code, word) = match &report.failed {
        Some(_) => (CRITICAL, "CRITICAL"),
        None if slow(crit) => (CRITICAL, "CRITICAL"),
        None if slow(warn) => (WARNING, "WARNING"),
        None => (OK, "OK"),
    };
    let said = match &report.failed {
        Some((stage, trouble)) => format!("{}: {}; {}", stage.word(), trouble.what, trouble.help),
        None => {
            let certificate = report
                .certificate
                .as_ref()
                .map(|certificate| format!(", certificate {}", days(certificate)));
            format!(
                "all stages in {}{}",
                shown(report.took),
                certificate.unwrap_or_default()
            )
        }
    };
    // A bar begins the performance data.
    let said = said.replace('|', "/").replace('\n', " ");
    let limit = |limit: Option<Duration>| limit.map_or_else(String::new, |limit| limit.as_secs_f64().to_string());
    let mut line = format!(
        "CONCLAVE {word} - {} {said} | time={:.6}s;{};{};0;{}",
        plain(&report.target),
        report.took.as_secs_f64(),
        limit(warn),
        limit(crit),
        timeout.as_secs_f64()
    );
    for step in &report.steps {
        line.push_str(&format!(" {}={:.6}s", step.stage.word(), step.took.as_secs_f64()));
    }
    if let Some(certificate) = &report.certificate {
        line.push_str(&format!(" certificate_days={}", certificate.days_left(super::now())));
    }
    (line, code)
}
