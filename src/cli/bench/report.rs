//! The numbers of a run: one list feeds the table and the JSON object.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::crew::{Span, Totals};
use super::plan::Plan;
use super::process::Process;
use hdrhistogram::Histogram;

/// One number: its JSON key, and how a person reads it.
struct Figure {
    key: &'static str,
    label: &'static str,
    value: f64,
    decimals: usize,
    unit: &'static str,
}

/// What a run found.
pub struct Report {
    test: &'static str,
    url: String,
    figures: Vec<Figure>,
    notes: Vec<String>,
    whole: bool,
}

impl Report {
    /// Begins with what was asked for.
    pub fn new(test: &'static str, plan: &Plan) -> Self {
        let mut report = Self {
            test,
            url: plan.target.shown(),
            figures: Vec::new(),
            notes: Vec::new(),
            whole: true,
        };
        report.add("connections", "connections", plan.connections as f64, 0, "");
        report
    }

    /// Adds a number.
    pub fn add(&mut self, key: &'static str, label: &'static str, value: f64, decimals: usize, unit: &'static str) {
        self.figures.push(Figure {
            key,
            label,
            value,
            decimals,
            unit,
        });
    }

    /// Adds p50, p99, p99.9 and the largest, recorded in microseconds.
    pub fn add_latency(&mut self, latency: &Histogram<u64>) {
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        self.add("latency_p50_ms", "latency p50", at(0.5), 3, "ms");
        self.add("latency_p99_ms", "latency p99", at(0.99), 3, "ms");
        self.add("latency_p999_ms", "latency p99.9", at(0.999), 3, "ms");
        self.add("latency_max_ms", "latency max", latency.max() as f64 / 1_000.0, 3, "ms");
    }

    /// Adds what the server used in `span`, per `event`; needs `--pid`.
    pub fn add_server_cpu(&mut self, span: &Span, events: u64, key: &'static str, label: &'static str) {
        let Some(cpu) = span.server_cpu else { return };
        self.add(
            "server_cpu_percent",
            "server CPU (100 is one core)",
            cpu.as_secs_f64() / span.elapsed() * 100.0,
            1,
            "%",
        );
        if events > 0 {
            self.add(key, label, cpu.as_secs_f64() * 1e6 / events as f64, 2, "µs");
        }
    }

    /// Adds how busy the client was, and says so when it was the limit.
    pub fn add_client(&mut self, span: &Span, plan: &Plan) {
        let percent = span.client_cpu.as_secs_f64() / span.elapsed() * 100.0;
        self.add("client_cpu_percent", "client CPU (100 is one core)", percent, 1, "%");
        if percent > 85.0 * plan.threads as f64 {
            self.note(format!(
                "the client was busy on all of its {} threads and may have been the limit; try --threads",
                plan.threads
            ));
        }
    }

    /// Adds the server's memory as it is now.
    pub fn add_server_memory(&mut self, server: Option<Process>) {
        if let Some(kib) = server.and_then(|server| server.memory_kib().ok()) {
            self.add("server_memory_mib", "server memory", kib as f64 / 1_024.0, 1, "MiB");
        }
    }

    /// Adds what went wrong: connections that failed or ended, and errors.
    pub fn add_losses(&mut self, totals: &Totals) {
        self.add(
            "connections_failed",
            "connections not opened",
            totals.failed as f64,
            0,
            "",
        );
        self.add("connections_lost", "connections lost", totals.lost as f64, 0, "");
        self.add("errors", "error messages", totals.errors as f64, 0, "");
        self.whole &= totals.failed == 0 && totals.lost == 0 && totals.errors == 0;
        self.notes.extend(
            totals
                .reasons
                .iter()
                .map(|(reason, count)| format!("{count} x {reason}")),
        );
    }

    /// Something a person should know.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The run lost something.
    pub fn incomplete(&mut self, note: String) {
        self.whole = false;
        self.note(note);
    }

    /// Whether every connection stayed and every delivery came.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// What a person should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One object on one line; units are in the keys.
    pub fn json(&self) -> String {
        let mut object = Map::new();
        object.insert("test".to_owned(), json!(self.test));
        object.insert("url".to_owned(), json!(self.url));
        object.insert("ok".to_owned(), json!(self.whole));
        for figure in &self.figures {
            let rounded = format!("{:.*}", figure.decimals, figure.value);
            // A whole number stays one; what is not finite becomes null.
            object.insert(
                figure.key.to_owned(),
                serde_json::from_str(&rounded).unwrap_or(Value::Null),
            );
        }
        object.insert("notes".to_owned(), json!(self.notes));
        Value::Object(object).to_string()
    }

    /// For a person.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(vec![format!("bench {}", self.test), self.url.clone(), String::new()]);
        for figure in &self.figures {
            let value = grouped(&format!("{:.*}", figure.decimals, figure.value));
            table.add_row(vec![figure.label.to_owned(), value, figure.unit.to_owned()]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

/// `12345.6` as `12,345.6`.
fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left % 3 == 0 && digit.is_ascii_digit() && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("1234567.89", "1,234,567.89"),
            ("-100.0", "-100.0"),
        ] {
            assert_eq!(super::grouped(number), expected);
        }
    }
}
