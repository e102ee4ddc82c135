//! What a probe found, for people, scripts, Prometheus and Nagios.

pub mod json;
pub mod nagios;
pub mod prometheus;
pub mod table;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::stage::Certificate;

/// Seconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `12.3 ms` or `1.25 s`.
fn shown(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
    } else {
        format!("{:.2} s", took.as_secs_f64())
    }
}

/// `89 days left`, or how long it has been over.
fn days(certificate: &Certificate) -> String {
    match certificate.days_left(now()) {
        left @ 0.. => format!("{left} days left"),
        _ if certificate.not_after > now() => "0 days left".to_owned(),
        over => format!("expired for {} days", -over),
    }
}
