//! Who numbered what, for each stream of rooms. A stream numbers all of its rooms, so they share one lineage.
//!
//! A new epoch begins at the stream's next seq when its server was started again (one that stands alone says so), and
//! below everything that is in doubt when the stream is found to have lost a tail. The lineage is kept in the state
//! stream and changed only if nobody else did so first.

use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backplane::contract::PartitionSet;
use crate::backplane::lineage::{EPOCHS_MAX, Lineage};

use super::api::Info;
use super::link::Link;
use super::names::{Names, STREAMS, stream_of};
use super::problem::Problem;

/// Times that a change of the lineage is tried while others change it too.
const TRIES: usize = 8;

/// As stored: `{"created":"2026-…","server":"NB…","lineage":"E1:1,E2:96"}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the stream: another one is another stream.
    created: String,
    /// The start of the server that numbers; empty where a stream may move.
    server: String,
    lineage: String,
}

impl Record {
    fn new(created: &str, server: &str) -> Self {
        Self {
            created: created.to_owned(),
            server: server.to_owned(),
            lineage: format!("{}:1", word()),
        }
    }

    /// What is to be stored now that the stream is as it is; `None` if that is what is stored.
    fn continued(&self, created: &str, server: &str, last_seq: u64) -> Option<Self> {
        if self.created != created || Lineage::parse(&self.lineage).is_err() {
            return Some(Self::new(created, server));
        }
        // No epoch begins beyond the next seq, unless the stream lost more than this record did.
        if self.server == server && self.begins() <= last_seq + 1 {
            return None;
        }
        Some(Self {
            server: server.to_owned(),
            ..self.forked(last_seq + 1)
        })
    }

    /// With a new epoch from `first` on. Epochs that began later are forgotten: nothing of them is left.
    fn forked(&self, first: u64) -> Self {
        let mut epochs: Vec<&str> = self.lineage.split(',').filter(|epoch| begin(epoch) <= first).collect();
        let new = format!("{}:{first}", word());
        epochs.push(&new);
        let oldest = epochs.len().saturating_sub(EPOCHS_MAX);
        Self {
            lineage: epochs[oldest..].join(","),
            ..self.clone()
        }
    }

    /// The first seq of the newest epoch.
    fn begins(&self) -> u64 {
        self.lineage.rsplit(',').next().map_or(1, begin)
    }
}

/// Of `E2:96`: 96.
fn begin(epoch: &str) -> u64 {
    epoch
        .rsplit_once(':')
        .and_then(|(_, first)| first.parse().ok())
        .unwrap_or(1)
}

/// An epoch's name.
fn word() -> String {
    Uuid::new_v4().simple().to_string()[..16].to_owned()
}

/// The lineages as this node knows them.
pub(super) struct Epochs {
    streams: [RwLock<Lineage>; STREAMS],
}

impl Epochs {
    pub fn new() -> Self {
        Self {
            streams: std::array::from_fn(|_| RwLock::default()),
        }
    }

    pub fn of(&self, stream: usize) -> Lineage {
        self.streams[stream].read().clone()
    }

    /// Which epoch numbered `seq`.
    pub fn epoch_of(&self, stream: usize, seq: u64) -> Arc<str> {
        self.streams[stream].read().epoch_of(seq)
    }

    /// As far as it concerns a room whose newest message is `head`: what began later has numbered nothing in it.
    pub fn up_to(&self, stream: usize, head: u64) -> Lineage {
        let lineage = self.of(stream);
        let text = lineage.to_string();
        let mut epochs: Vec<&str> = text.split(',').filter(|epoch| begin(epoch) <= head).collect();
        if epochs.is_empty() {
            epochs.extend(text.split(',').next());
        }
        Lineage::parse(&epochs.join(",")).unwrap_or(lineage)
    }

    /// True if it is another one than was known.
    fn set(&self, stream: usize, lineage: Lineage) -> bool {
        let mut known = self.streams[stream].write();
        let is_new = !known.epoch().is_empty() && *known != lineage;
        *known = lineage;
        is_new
    }

    /// Reads the lineage that others may have changed. True if they did.
    pub async fn load(&self, link: &Link, names: &Names, stream: usize) -> Result<bool, Problem> {
        let (record, _) = stored(link, names, stream).await?;
        let lineage = record.and_then(|record| Lineage::parse(&record.lineage).ok());
        Ok(lineage.is_some_and(|lineage| self.set(stream, lineage)))
    }

    /// Before anything is published over a new link: a new epoch if the server was started again since the newest one. True
    /// if the lineage is another one than was known.
    /// Every node does this first, so nobody has written since what is read here.
    pub async fn settle(&self, link: &Link, names: &Names, stream: usize, info: &Info) -> Result<bool, Problem> {
        let server = if link.clustered { "" } else { &*link.server };
        let next = |record: Option<&Record>| match record {
            None => Some(Record::new(&info.created, server)),
            Some(record) => record.continued(&info.created, server, info.state.last_seq),
        };
        self.change(link, names, stream, next).await
    }

    /// The stream lost a tail, and up to `common` it surely did not. True if the lineage is another one now. Nothing is
    /// done if somebody else found the same: then it is no longer the one that was known here.
    pub async fn fork(&self, link: &Link, names: &Names, stream: usize, common: u64) -> Result<bool, Problem> {
        let known = self.of(stream).to_string();
        let next = |record: Option<&Record>| {
            let record = record.filter(|record| record.lineage == known)?;
            Some(record.forked(common + 1))
        };
        self.change(link, names, stream, next).await
    }

    async fn change(
        &self,
        link: &Link,
        names: &Names,
        stream: usize,
        next: impl Fn(Option<&Record>) -> Option<Record>,
    ) -> Result<bool, Problem> {
        let mut tries = 0;
        loop {
            let (record, seq) = stored(link, names, stream).await?;
            let Some(new) = next(record.as_ref()) else {
                let lineage = record.and_then(|record| Lineage::parse(&record.lineage).ok());
                return Ok(lineage.is_some_and(|lineage| self.set(stream, lineage)));
            };
            let body = serde_json::to_vec(&new).map_err(|_| Problem::BROKEN)?;
            let done = link.store_after(names.generation(stream), seq, body.into()).await;
            tries += 1;
            match done {
                // Read again: of several who were all told that they were first, the last one was.
                Ok(_) => return self.load(link, names, stream).await,
                Err(problem) if problem.is_conflict() && tries < TRIES => {}
                Err(problem) => return Err(problem),
            }
        }
    }
}

/// The record, and the seq that it has; 0 if there is none.
async fn stored(link: &Link, names: &Names, stream: usize) -> Result<(Option<Record>, u64), Problem> {
    let found = link.newest(&names.stream("state"), &names.generation(stream)).await?;
    let seq = found.as_ref().map_or(0, |found| found.seq);
    // One that cannot be read is replaced: every position is then unknown, which is said.
    let record = found.and_then(|found| serde_json::from_slice(&found.payload).ok());
    Ok((record, seq))
}

/// The partitions of one stream.
#[derive(Debug)]
pub(super) struct OfStream(pub usize);

impl PartitionSet for OfStream {
    fn contains(&self, partition: u16) -> bool {
        stream_of(partition) == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::lineage::Verdict;

    fn lineage(record: &Record) -> Lineage {
        Lineage::parse(&record.lineage).expect("readable")
    }

    #[test]
    fn a_restart_that_lost_nothing_keeps_every_position() {
        let first = Record::new("t0", "A");
        assert_eq!(first.continued("t0", "A", 50), None);
        let second = first.continued("t0", "B", 50).expect("another start");
        let old = lineage(&first).epoch();
        let lineage = lineage(&second);
        assert_eq!(lineage.judge(&old, 50, 90), Verdict::Good);
        assert_eq!(lineage.judge(&old, 51, 90), Verdict::Forked(50));
        assert_eq!(lineage.judge(&lineage.epoch(), 51, 90), Verdict::Good);
    }

    #[test]
    fn a_lost_tail_is_forked_and_a_new_stream_is_unknown() {
        let first = Record::new("t0", "A");
        let second = first.continued("t0", "B", 50).expect("another start");
        let lost = lineage(&second).epoch();
        // An older copy of the stream: it ends before the second epoch began.
        let third = second.continued("t0", "C", 40).expect("another start");
        assert_eq!(
            lineage(&third).judge(&lineage(&first).epoch(), 45, 60),
            Verdict::Forked(40)
        );
        assert_eq!(lineage(&third).judge(&lost, 51, 60), Verdict::Unknown);
        // The same server with an older stream under it, as a snapshot put back leaves it.
        assert!(second.continued("t0", "B", 40).is_some());
        let other = third.continued("t1", "C", 40).expect("another stream");
        assert_eq!(lineage(&other).judge(&lineage(&first).epoch(), 1, 60), Verdict::Unknown);
    }

    #[test]
    fn a_room_knows_the_epochs_that_numbered_it() {
        let epochs = Epochs::new();
        epochs.set(3, Lineage::parse("E1:1,E2:96").expect("readable"));
        assert_eq!(epochs.up_to(3, 95).to_string(), "E1:1");
        assert_eq!(epochs.up_to(3, 96).to_string(), "E1:1,E2:96");
        assert_eq!(epochs.up_to(3, 0).to_string(), "E1:1");
        assert!(epochs.set(3, Lineage::parse("E1:1,E3:96").expect("readable")));
    }

    #[test]
    fn only_the_newest_epochs_are_remembered() {
        let mut record = Record::new("t0", "A");
        for server in 0..40_u64 {
            record = record
                .continued("t0", &server.to_string(), server * 10)
                .expect("another start");
        }
        assert_eq!(record.lineage.split(',').count(), EPOCHS_MAX);
    }
}
