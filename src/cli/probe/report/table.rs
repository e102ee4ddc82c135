//! For a person.

use super::{days, shown};
use crate::cli::paint::Paint;
use crate::cli::probe::stage::{Report, Stage, Step, plain};

/// One line per stage.
pub fn of(report: &Report, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&report.target));
    let last = report.steps.len().saturating_sub(1);
    for (at, step) in report.steps.iter().enumerate() {
        let failed = report.failed.as_ref().is_some_and(|(stage, _)| *stage == step.stage) && at == last;
        let detail = if failed {
            paint.loud(" failed ")
        } else {
            paint.faint(plain(&detail(report, step)))
        };
        let line = format!("  {:<13}{:>10}  {detail}", step.stage.word(), shown(step.took));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if report.failed.is_none() {
        text.push_str(&format!("ok in {}\n", shown(report.took)));
    }
    text
}

/// What went wrong and what to do; empty when nothing did.
pub fn trouble(report: &Report) -> String {
    let Some((stage, trouble)) = &report.failed else {
        return String::new();
    };
    format!(
        "error: {}: {}\n  help: {}\n",
        stage.word(),
        plain(&trouble.what),
        trouble.help
    )
}

fn detail(report: &Report, step: &Step) -> String {
    match (step.stage, &report.certificate) {
        (Stage::Tls, Some(certificate)) => {
            let trust = if certificate.verified { "" } else { ", not verified" };
            format!(
                "{}, {} from {}, {}{trust}",
                step.detail,
                certificate.names.first().map_or("no name", String::as_str),
                certificate.issuer,
                days(certificate)
            )
        }
        _ => step.detail.clone(),
    }
}
