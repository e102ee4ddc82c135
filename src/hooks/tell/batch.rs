//! Events that are posted together: `{"events":[…]}`. Pure.

use aws_lc_rs::digest::{Context, SHA256};

use crate::backplane::envelope::Envelope;
use crate::backplane::outbox::record::{Record, What};

/// One request's worth.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Of the request: the same for the same events, however often they are sent.
    pub(super) id: String,
    pub(super) body: String,
    /// Events in it.
    pub(super) events: u64,
    /// What `lost` events in it say.
    pub(super) lost: u64,
    /// Records that are none, which nobody can be told of.
    pub(super) unreadable: u64,
    /// When the oldest of them happened, in ms since the Unix epoch.
    pub(super) oldest_ms: Option<u64>,
    /// `traceparent` of the first that has one.
    pub(super) trace: Option<String>,
}

impl Batch {
    /// Out of records, in their order.
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut batch = Self {
            body: r#"{"events":["#.to_owned(),
            ..Self::default()
        };
        let mut ids = Context::new(&SHA256);
        for bytes in records {
            let before = batch.body.len();
            if batch.events > 0 {
                batch.body.push(',');
            }
            match Record::parse(bytes).and_then(|record| record.write_json(&mut batch.body).map(|()| record)) {
                Ok(record) => {
                    batch.note(&record);
                    ids.update(record.id.as_bytes());
                    ids.update(b" ");
                }
                Err(_) => {
                    batch.body.truncate(before);
                    batch.unreadable += 1;
                }
            }
        }
        batch.body.push_str("]}");
        batch.id = ids.finish().as_ref()[..16]
            .iter()
            .fold("b-".to_owned(), |id, byte| id + &format!("{byte:02x}"));
        batch
    }

    fn note(&mut self, record: &Record<'_>) {
        self.events += 1;
        self.oldest_ms = Some(
            self.oldest_ms
                .map_or(record.time_ms, |oldest| oldest.min(record.time_ms)),
        );
        match &record.what {
            What::Lost { count, .. } => self.lost += count,
            What::Chat { envelope, .. } if self.trace.is_none() => {
                let envelope = Envelope::parse(envelope.as_bytes()).ok();
                self.trace = envelope.and_then(|envelope| envelope.trace.map(str::to_owned));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_together_in_their_order() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let chat = format!(r#"c e-2 4 E1 7 1 a5 lobby- {{"v":1,"from":{{"id":"u"}},"content":1,"trace":"{trace}"}}"#);
        let records = [
            r#"j e-1 5 1 a5 lobby{"id":"u"}"#,
            "what is that",
            &chat,
            "x e-3 9 17 5 8",
        ];
        let batch = Batch::of(records.iter().map(|record| record.as_bytes()));
        let body: serde_json::Value = serde_json::from_str(&batch.body).expect("JSON");
        let names: Vec<_> = (0..3)
            .map(|at| body["events"][at]["event"].as_str().expect("a name"))
            .collect();
        assert_eq!(names, ["join", "chat", "lost"]);
        assert_eq!((batch.events, batch.lost, batch.unreadable), (3, 17, 1));
        assert_eq!((batch.oldest_ms, batch.trace.as_deref()), (Some(4), Some(trace)));
        assert_eq!(
            batch,
            Batch::of(records.iter().map(|record| record.as_bytes())),
            "the same again"
        );
        assert_ne!(batch.id, Batch::of([records[0].as_bytes()].into_iter()).id);
        assert_eq!(batch.id.len(), 34);
    }

    #[test]
    fn no_event_is_no_batch() {
        let batch = Batch::of(["?"].iter().map(|record| record.as_bytes()));
        assert_eq!(
            (batch.events, batch.unreadable, &*batch.body),
            (0, 1, r#"{"events":[]}"#)
        );
    }
}
