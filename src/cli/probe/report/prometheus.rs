//! For Prometheus: text format 0.0.4.

use crate::cli::probe::stage::{Report, Stage};
use crate::telemetry::metrics::names::{Definition, MetricKind, probe};

/// All metrics of one probe; with a `target` label where nobody else adds one.
pub fn of(report: &Report, target: Option<&str>) -> String {
    let mut text = Text::new(target);
    text.head(&probe::SUCCESS);
    text.sample(&probe::SUCCESS, None, f64::from(u8::from(report.failed.is_none())));
    text.head(&probe::DURATION);
    text.sample(&probe::DURATION, None, report.took.as_secs_f64());
    text.head(&probe::STAGE_DURATION);
    for step in &report.steps {
        text.sample(&probe::STAGE_DURATION, Some(step.stage), step.took.as_secs_f64());
    }
    text.head(&probe::FAILED);
    let failed = report.failed.as_ref().map(|(stage, _)| *stage);
    for stage in Stage::ALL {
        let here = failed == Some(stage);
        text.sample(&probe::FAILED, Some(stage), f64::from(u8::from(here)));
    }
    if let Some(certificate) = &report.certificate {
        text.head(&probe::CERTIFICATE_EXPIRY);
        text.sample(&probe::CERTIFICATE_EXPIRY, None, certificate.not_after as f64);
    }
    text.text
}

/// An exposition that is being written.
pub struct Text {
    pub text: String,
    /// `target="…"`, or empty.
    target: String,
}

impl Text {
    pub fn new(target: Option<&str>) -> Self {
        let target = target.map(|target| format!("target=\"{}\"", escaped(target)));
        Self {
            text: String::new(),
            target: target.unwrap_or_default(),
        }
    }

    /// `# HELP` and `# TYPE`.
    pub fn head(&mut self, definition: &Definition) {
        let kind = match definition.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let name = definition.name;
        self.text
            .push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", definition.help));
    }

    fn sample(&mut self, definition: &Definition, stage: Option<Stage>, value: f64) {
        let stage = stage.map(|stage| format!("stage=\"{}\"", stage.word()));
        self.labelled(definition, &stage.unwrap_or_default(), value);
    }

    /// One sample; `labels` are written already.
    pub fn labelled(&mut self, definition: &Definition, labels: &str, value: f64) {
        let both: Vec<&str> = [self.target.as_str(), labels]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let labels = if both.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", both.join(","))
        };
        self.text.push_str(&format!("{}{labels} {value}\n", definition.name));
    }
}

/// As the text format wants label values.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
