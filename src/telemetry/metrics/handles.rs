//! Handles into the recorder, registered once: no event looks anything up by name.

use std::marker::PhantomData;

use metrics::{Key, KeyName, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::labels::{Initiator, Label, OTHER};
use super::names::{self, Definition, MetricKind};

static METADATA: Metadata<'static> = Metadata::new("conclave", Level::INFO, None);

/// Registers the metrics of the list with one recorder.
pub(super) struct Registrar<'a>(pub &'a PrometheusRecorder);

impl Registrar<'_> {
    /// Gives every metric its help text.
    pub fn describe_all(&self) {
        for definition in names::ALL {
            let (name, help) = (KeyName::from(definition.name), definition.help.into());
            match definition.kind {
                MetricKind::Counter => self.0.describe_counter(name, None, help),
                MetricKind::Gauge => self.0.describe_gauge(name, None, help),
                MetricKind::Histogram => self.0.describe_histogram(name, None, help),
            }
        }
    }

    pub fn counter(&self, definition: &Definition, values: &[&str]) -> metrics::Counter {
        self.0.register_counter(&key(definition, values), &METADATA)
    }

    pub fn gauge(&self, definition: &Definition, values: &[&str]) -> metrics::Gauge {
        self.0.register_gauge(&key(definition, values), &METADATA)
    }

    pub fn histogram(&self, definition: &Definition, values: &[&str]) -> metrics::Histogram {
        self.0.register_histogram(&key(definition, values), &METADATA)
    }

    /// One counter for each value of the only label.
    pub fn counters<L: Label>(&self, definition: &Definition) -> Counters<L> {
        let each = L::ALL.iter().map(|label| self.counter(definition, &[label.word()]));
        Counters(each.collect(), PhantomData)
    }

    /// One gauge for each value of the only label.
    pub fn gauges<L: Label>(&self, definition: &Definition) -> Vec<metrics::Gauge> {
        L::ALL
            .iter()
            .map(|label| self.gauge(definition, &[label.word()]))
            .collect()
    }

    /// One counter for each word; the last word of the list is `other`.
    pub fn words(&self, definition: &Definition, words: &'static [&'static str]) -> Words {
        Words(
            words
                .iter()
                .map(|word| (*word, self.counter(definition, &[word])))
                .collect(),
        )
    }

    /// One counter for each value of the second label, all with the same first one.
    pub fn counters_of<L: Label>(&self, definition: &Definition, first: &str) -> Counters<L> {
        let each = L::ALL
            .iter()
            .map(|label| self.counter(definition, &[first, label.word()]));
        Counters(each.collect(), PhantomData)
    }

    /// One counter for each word as second label, all with the same first one; the last word is `other`.
    pub fn words_of(&self, definition: &Definition, first: &str, words: &'static [&'static str]) -> Words {
        Words(
            words
                .iter()
                .map(|word| (*word, self.counter(definition, &[first, word])))
                .collect(),
        )
    }

    /// One counter for each way a socket may end; the last way is `other`.
    pub fn closes(
        &self,
        initiator: Initiator,
        closes: &'static [(u16, &'static str)],
    ) -> Vec<((u16, &'static str), metrics::Counter)> {
        let register = |&(code, reason): &(u16, &'static str)| {
            let shown = if code == 0 { OTHER.to_owned() } else { code.to_string() };
            let labels = [shown.as_str(), reason, initiator.word()];
            ((code, reason), self.counter(&names::DISCONNECTS, &labels))
        };
        closes.iter().map(register).collect()
    }
}

/// Counts under the close, or under the last of the list when it is not in it.
pub(super) fn inc_close(closes: &[((u16, &'static str), metrics::Counter)], close: (u16, &'static str)) {
    if let Some((_, counter)) = closes.iter().find(|(known, _)| *known == close).or(closes.last()) {
        counter.increment(1);
    }
}

fn key(definition: &Definition, values: &[&str]) -> Key {
    debug_assert_eq!(definition.labels.len(), values.len(), "{}", definition.name);
    let labels: Vec<metrics::Label> = definition
        .labels
        .iter()
        .zip(values)
        .map(|(label, value)| metrics::Label::new(*label, (*value).to_owned()))
        .collect();
    Key::from_parts(definition.name, labels)
}

/// Counters of one metric, by the value of its label.
pub struct Counters<L>(Vec<metrics::Counter>, PhantomData<L>);

impl<L: Label> Counters<L> {
    /// One more.
    pub fn inc(&self, label: L) {
        self.0[label.index()].increment(1);
    }

    /// The counter of one value.
    pub fn of(&self, label: L) -> &metrics::Counter {
        &self.0[label.index()]
    }
}

/// Counters of one metric, by a word of a closed list.
pub(super) struct Words(Vec<(&'static str, metrics::Counter)>);

impl Words {
    /// Counts under the word, or under `other` when it is not in the list.
    pub fn inc(&self, word: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == word).or(self.0.last()) {
            counter.increment(1);
        }
    }
}
