//! Once a second, whether what is stored is also told, and whether a stream still has what it had.
//!
//! A stream that lost a tail numbers it again, and says nothing. So each node looks for the last message that it stored
//! there itself, and for the newest that it heard of: if one of them is gone or is another one, the stream has lost
//! everything since this node's last message that is still there, as far as anybody can tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::backplane::contract::{RoomKey, Scope};
use crate::telemetry::metrics::CallKind;

use super::clock::local_ms;
use super::epochs::OfStream;
use super::link::Link;
use super::names::{Names, STREAMS};
use super::problem::Problem;
use super::stored::Stored;
use super::{Nats, word};

const INTERVAL: Duration = Duration::from_secs(1);

/// Nodes that may each sing once a second; more of them sing more slowly.
const NODES_AT_FULL_RATE: u32 = 20;

/// A node that did not hear itself for so many intervals makes a new link.
const SILENT_INTERVALS: u32 = 3;

/// A canary older than this may have been dropped for its age, and its absence says nothing.
const WITNESS_AGE_MAX: Duration = Duration::from_secs(30);

/// A stream with several copies is looked at again before it is suspected.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(200);

/// How far each stream of rooms is known.
#[derive(Default)]
pub(super) struct Marks([Mutex<Mark>; STREAMS]);

#[derive(Default)]
struct Mark {
    /// The newest message that this node stored or heard of, and its room.
    newest: Option<(u64, Arc<str>)>,
    /// This node's last canary that was acknowledged.
    canary: Option<Sung>,
    /// Whether the stream could not be reached in the last round.
    away: bool,
}

#[derive(Clone, Copy)]
struct Sung {
    seq: u64,
    at: Instant,
    sent_ms: u64,
    acknowledged_ms: u64,
}

/// What a look at a stream showed.
struct Looked {
    /// This node's newest canary that is there.
    canary: u64,
    is_suspicious: bool,
}

impl Marks {
    /// A message of a room.
    pub fn note(&self, stream: usize, seq: u64, room: &Arc<str>) {
        let mut mark = self.0[stream].lock();
        if mark.newest.as_ref().is_none_or(|(newest, _)| *newest < seq) {
            mark.newest = Some((seq, Arc::clone(room)));
        }
    }

    /// What is known is of another lineage.
    pub fn forget(&self, stream: usize) {
        *self.0[stream].lock() = Mark::default();
    }
}

/// Whether the canary of the round before is where it was. A newer one is one whose answer was lost.
fn is_missing(sung: Option<Sung>, found: Option<&Stored>) -> bool {
    sung.is_some_and(|sung| found.is_none_or(|found| found.seq < sung.seq))
}

/// Whether at the seq of a message now is another one. One that is not there any more may have been dropped in order.
fn is_another(names: &Names, room: &Arc<str>, found: Option<&Stored>) -> bool {
    found.is_some_and(|found| found.subject != names.messages(&RoomKey::new(Arc::clone(room))))
}

impl Nats {
    /// Never returns but when the node does not hear itself.
    pub(super) async fn sing_on(&self, link: &Link) {
        let began = Instant::now();
        let mut interval = INTERVAL;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The streams of rooms and the log are not waited for one after the other: each has a leader of its own.
            let rounds = join_all((0..STREAMS).map(|stream| self.round(link, stream)));
            let (sung, _) = tokio::join!(self.counted(CallKind::Canary, self.sing(link)), rounds);
            if let Err(failed) = sung {
                tracing::debug!(why = word(failed), "NATS: the canary was not stored");
            }
            let silence = self.heard_itself().unwrap_or_else(|| began.elapsed());
            if silence > interval * SILENT_INTERVALS {
                tracing::warn!(
                    silence_s = silence.as_secs(),
                    "NATS: what is stored is not told: a new connection is made"
                );
                return;
            }
            let (oldest, nodes) = self.peers_heard();
            self.metrics.backplane().peer_age(oldest.as_secs_f64());
            let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
            let slower = INTERVAL * nodes.div_ceil(NODES_AT_FULL_RATE);
            if slower != interval {
                interval = slower;
                ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
        }
    }

    async fn round(&self, link: &Link, stream: usize) {
        let came_back = match self.examine(link, stream).await {
            Ok(()) => std::mem::replace(&mut self.marks.0[stream].lock().away, false),
            Err(problem) => {
                tracing::debug!(stream, %problem, "NATS: a stream does not answer");
                self.marks.0[stream].lock().away = true;
                false
            }
        };
        if came_back {
            tracing::info!(stream, "NATS: a stream answers again");
            self.tell_sink(|sink| sink.suspect(Scope::Partitions(&OfStream(stream))));
        }
    }

    async fn examine(&self, link: &Link, stream: usize) -> Result<(), Problem> {
        let names = &self.settings.names;
        let subject = names.canary(stream, &self.node);
        let (sung, newest) = {
            let mark = self.marks.0[stream].lock();
            let sung = mark.canary.filter(|sung| sung.at.elapsed() < WITNESS_AGE_MAX);
            (sung, mark.newest.clone())
        };
        let mut looked = self.look(link, stream, sung, newest.as_ref()).await?;
        if looked.is_suspicious && link.clustered {
            // A leader that was just voted out may have answered with what it had: the next one has more.
            tokio::time::sleep(SECOND_LOOK_AFTER).await;
            looked = self.look(link, stream, sung, newest.as_ref()).await?;
        }
        let mut headers = HeaderMap::new();
        // Only the newest is kept.
        headers.insert("Nats-Rollup", "sub");
        let (at, sent_ms) = (Instant::now(), local_ms());
        let ack = link.store(subject, headers, bytes::Bytes::new()).await?;
        let acknowledged_ms = local_ms();
        // The leader's own number, and it was given before.
        let again = newest.is_some_and(|(seq, _)| ack.seq <= seq);
        self.marks.0[stream].lock().canary = Some(Sung {
            seq: ack.seq,
            at,
            sent_ms,
            acknowledged_ms,
        });
        if again || looked.is_suspicious {
            self.fork(link, stream, looked.canary).await?;
        }
        Ok(())
    }

    async fn look(
        &self,
        link: &Link,
        stream: usize,
        sung: Option<Sung>,
        newest: Option<&(u64, Arc<str>)>,
    ) -> Result<Looked, Problem> {
        let names = &self.settings.names;
        let name = names.rooms_stream(stream);
        let found = link.newest(&name, &names.canary(stream, &self.node)).await?;
        if let (Some(sung), Some(found)) = (sung, &found)
            && sung.seq == found.seq
        {
            self.clock.learn(sung.sent_ms, sung.acknowledged_ms, found.stored_ms);
        }
        let mut is_suspicious = is_missing(sung, found.as_ref());
        if let Some((seq, room)) = newest.filter(|(seq, _)| sung.is_none_or(|sung| sung.seq < *seq)) {
            is_suspicious |= is_another(names, room, link.at(&name, *seq).await?.as_ref());
        }
        Ok(Looked {
            canary: found.map_or(0, |found| found.seq),
            is_suspicious,
        })
    }

    /// Up to `common` is what it was.
    async fn fork(&self, link: &Link, stream: usize, common: u64) -> Result<(), Problem> {
        tracing::warn!(
            stream,
            common,
            "NATS: a stream has lost messages that it had acknowledged: members are told"
        );
        self.epochs.fork(link, &self.settings.names, stream, common).await?;
        self.doubt(stream);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seq: u64, subject: &str) -> Stored {
        Stored {
            subject: subject.to_owned(),
            seq,
            stored_ms: 0,
            time_ms: 0,
            payload: bytes::Bytes::new(),
        }
    }

    #[test]
    fn a_lost_tail_is_seen_by_what_is_missing_or_another() {
        let sung = Some(Sung {
            seq: 90,
            at: Instant::now(),
            sent_ms: 0,
            acknowledged_ms: 0,
        });
        assert!(!is_missing(None, None));
        assert!(!is_missing(sung, Some(&stored(90, "c"))));
        assert!(
            !is_missing(sung, Some(&stored(91, "c"))),
            "the answer to that one was lost"
        );
        assert!(is_missing(sung, Some(&stored(80, "c"))) && is_missing(sung, None));
        let (names, room) = (Names::new("p"), Arc::from("lobby"));
        let subject = names.messages(&RoomKey::new(Arc::clone(&room)));
        assert!(!is_another(&names, &room, None), "dropped in order");
        assert!(!is_another(&names, &room, Some(&stored(5, &subject))));
        assert!(is_another(&names, &room, Some(&stored(5, "p.1.c.0.other"))));
    }

    #[test]
    fn the_newest_mark_stays() {
        let marks = Marks::default();
        for (seq, room) in [(5, "a"), (4, "b"), (6, "c")] {
            marks.note(0, seq, &room.into());
        }
        assert_eq!(marks.0[0].lock().newest, Some((6, "c".into())));
        marks.forget(0);
        assert_eq!(marks.0[0].lock().newest, None);
    }
}
