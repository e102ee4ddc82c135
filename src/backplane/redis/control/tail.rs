//! The end of the control log, on a connection of its own.
//!
//! Every entry names the one before it, so a reader that finds another one there knows that it missed something: the log
//! was cut, trimmed or wound back. Somebody writes an entry each second; a connection that brings none for a while is
//! attached to the wrong server, or to nothing, and is made anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Pipeline, PushInfo, Value, cmd};

use super::super::super::contract::{Control, Failed, Refusal, Sink};
use super::super::backoff::Backoff;
use super::super::error::judge;
use super::super::link::Link;
use super::super::topology::Place;
use super::super::{Redis, reply};
use super::{LOG, LOG_ENTRIES, revocation, subject};
use crate::telemetry::metrics::{self, Reason};

/// Nodes see to it that an entry is there so often.
const TICK: Duration = Duration::from_secs(1);

/// Younger than this, another node's tick will do. Less than [`TICK`], so that one node alone ticks each time.
const TICK_AGE_MS: &str = "800";

/// A tick that says nothing else.
const TICK_TEXT: &str = "t";

/// A connection that brings no entry for so long is made anew.
const SILENCE: Duration = Duration::from_secs(3);

/// How long Redis holds on to a question when there is nothing new, in ms.
const BLOCK_MS: u64 = 1_000;

/// Entries in one answer.
const READ_MAX: usize = 256;

/// This link is told nothing unasked.
type Unheard = fn(PushInfo) -> Result<(), ()>;

/// A connection that was good for so long was good.
const GOOD: Duration = Duration::from_secs(10);

/// An entry's name: ms of server time and a number, as Redis makes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64, u64);

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, number.parse().ok()?))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Where a reader stands. Pure.
#[derive(Debug, Default)]
struct Tail {
    at: Id,
    /// Who was read from; none before the first connection.
    server: Option<String>,
}

impl Tail {
    /// A connection is there, and the log ends at `end`. True when what was missed cannot be read any more.
    fn resume(&mut self, server: String, end: Id) -> bool {
        let known = self.server.replace(server);
        let same = known.is_some() && known == self.server;
        if known.is_none() || end < self.at {
            self.at = end;
            return true;
        }
        !same
    }

    /// An entry was read. True when something between it and the one before was missed.
    fn step(&mut self, id: Id, follows: Option<Id>) -> bool {
        let missed = follows != Some(self.at);
        self.at = id;
        missed
    }
}

impl Redis {
    /// The control log, read on a link of its own from the start on. Cancel safe.
    pub(in super::super) async fn follow_control(self: Arc<Self>) {
        let sink = &*self.started().sink;
        tokio::join!(self.tick_control(sink), self.read_control(sink));
    }

    /// A connection of its own to the server that commands go to.
    async fn dial_control(&self) -> Option<Arc<Link>> {
        let host = self.shard(Place::Control)?.command()?.host.clone();
        match self.started().dialer.dial(&host, None::<Unheard>).await {
            Ok(link) => Some(link),
            Err(error) => {
                tracing::debug!(%error, "control log: no connection");
                None
            }
        }
    }

    /// Sees to the ticks. They go the way of all calls, so they also tell when that has come to another server, whose
    /// revocations may be older.
    async fn tick_control(&self, sink: &dyn Sink) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known: Option<String> = None;
        loop {
            ticks.tick().await;
            let args = [LOG_ENTRIES, TICK_TEXT, TICK_AGE_MS].map(str::as_bytes);
            let Ok(answer) = self.call_ctl(&LOG, &[&self.keys.control("log")], &args).await else {
                continue;
            };
            let Ok((server, _)) = end_of_log(answer) else {
                continue;
            };
            if known.as_ref().is_some_and(|known| *known != server) {
                sink.control_suspect();
            }
            known = Some(server);
        }
    }

    async fn read_control(&self, sink: &dyn Sink) {
        let mut tail = Tail::default();
        let mut backoff = Backoff::default();
        loop {
            let since = Instant::now();
            let reason = self.listen(&mut tail, sink).await;
            self.telemetry.link_up(metrics::Link::Control, false);
            if let Some(reason) = reason {
                self.telemetry.link_rebuilt(metrics::Link::Control, reason);
            }
            if since.elapsed() > GOOD {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Reads until something is wrong with the connection, and says what; none if there was none.
    async fn listen(&self, tail: &mut Tail, sink: &dyn Sink) -> Option<Reason> {
        let link = self.dial_control().await?;
        let log = self.keys.control("log");
        let reason = match self.resume(&link, &log, tail, sink).await {
            Ok(()) => self.read_on(&link, &log, tail, sink).await,
            Err(_) => Reason::Closed,
        };
        link.close();
        Some(reason)
    }

    async fn resume(&self, link: &Link, log: &[u8], tail: &mut Tail, sink: &dyn Sink) -> Result<(), Failed> {
        let none: [&[u8]; 0] = [];
        let (server, end) = end_of_log(self.on_link(link, &LOG, &[log], &none).await?)?;
        // Only now: what comes after the end is read from here, what was before it is in what is loaded.
        if tail.resume(server, end) {
            sink.control_suspect();
        }
        self.telemetry.link_up(metrics::Link::Control, true);
        Ok(())
    }

    async fn read_on(&self, link: &Link, log: &[u8], tail: &mut Tail, sink: &dyn Sink) -> Reason {
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            let Ok(entries) = read(link, log, tail.at).await else {
                return Reason::Closed;
            };
            if !entries.is_empty() {
                heard = Instant::now();
            }
            let mut missed = false;
            for entry in entries {
                missed |= tail.step(entry.id, entry.follows);
                if let Some(control) = entry.control {
                    sink.control_at(control, entry.id.0);
                }
            }
            if missed {
                sink.control_suspect();
            }
        }
        Reason::Timeout
    }
}

/// What follows `after`; nothing when there is nothing for a while.
async fn read(link: &Link, log: &[u8], after: Id) -> Result<Vec<LogEntry>, Failed> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(READ_MAX).arg("BLOCK").arg(BLOCK_MS);
    read.arg("STREAMS").arg(log).arg(after.to_string());
    let mut only = Pipeline::with_capacity(1);
    only.add_command(read);
    let answer = link.send_all_within(&only, SILENCE).await?.pop();
    entries(judge(answer.unwrap_or(Value::Nil))?)
}

/// Reads `{server, newest entry}`.
fn end_of_log(answer: Value) -> Result<(String, Id), Failed> {
    let mut answer = reply::array(answer)?;
    let server = reply::text(answer.next())?;
    let end = Id::parse(&reply::text(answer.next())?).ok_or(Refusal::Broken)?;
    Ok((server, end))
}

/// One entry of the log.
#[derive(Debug, PartialEq, Eq)]
struct LogEntry {
    id: Id,
    /// None: it is not one of ours.
    follows: Option<Id>,
    /// None in a tick, and in what this build cannot read.
    control: Option<Control>,
}

/// Reads the answer of `XREAD` of one stream: nil, or a map of its name to entries (before RESP3: a list of pairs).
fn entries(answer: Value) -> Result<Vec<LogEntry>, Failed> {
    let list = match answer {
        Value::Nil => return Ok(vec![]),
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        streams => reply::array(reply::array(streams)?.next().unwrap_or(Value::Nil))?.nth(1),
    };
    reply::array(list.unwrap_or(Value::Nil))?.map(entry).collect()
}

fn entry(value: Value) -> Result<LogEntry, Failed> {
    let mut parts = reply::array(value)?;
    let id = Id::parse(&reply::text(parts.next())?).ok_or(Refusal::Broken)?;
    let mut fields = reply::array(parts.next().unwrap_or(Value::Nil))?;
    let mut entry = LogEntry {
        id,
        follows: None,
        control: None,
    };
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        // What is no text is not ours.
        let (Ok(name), Ok(value)) = (reply::text(Some(name)), reply::text(Some(value))) else {
            continue;
        };
        match name.as_str() {
            "f" => entry.follows = Id::parse(&value),
            "c" => entry.control = control(&value),
            _ => {}
        }
    }
    Ok(entry)
}

/// Reads `r <issued_before> <forget_after> <kind>:<value>` or `k <time ms> <kind>:<value>`.
fn control(text: &str) -> Option<Control> {
    let (kind, rest) = text.split_once(' ')?;
    match kind {
        "r" => {
            let at = rest.match_indices(' ').nth(1)?.0;
            revocation(&rest[at + 1..], &rest[..at]).map(Control::Revoke)
        }
        "k" => {
            let (time_ms, of) = rest.split_once(' ')?;
            Some(Control::Kick {
                subject: subject(of)?,
                time_ms: time_ms.parse().ok()?,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::contract::{Revocation, Subject};
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn a_reader_knows_what_it_missed() {
        let mut tail = Tail::default();
        assert!(tail.resume("A".into(), Id(5, 0)), "what was before is to be loaded");
        assert!(!tail.step(Id(6, 0), Some(Id(5, 0))));
        assert!(!tail.resume("A".into(), Id(9, 0)), "the rest can be read");
        assert!(!tail.step(Id(7, 0), Some(Id(6, 0))));
        assert!(tail.step(Id(9, 0), Some(Id(8, 0))), "trimmed");
        assert!(tail.step(Id(9, 1), None), "somebody else wrote");
        assert!(tail.resume("A".into(), Id(9, 0)), "wound back");
        assert_eq!(tail.at, Id(9, 0));
        assert!(!tail.step(Id(10, 0), Some(Id(9, 0))));
        assert!(
            tail.resume("B".into(), Id(12, 0)),
            "another server may have lost revocations"
        );
        assert_eq!(tail.at, Id(10, 0));
        assert!(tail.step(Id(13, 0), Some(Id::default())), "flushed");
    }

    #[test]
    fn entries_are_read_from_either_protocol() {
        let one = Value::Array(vec![
            text("5-1"),
            Value::Array(["f", "5-0", "c", "r 7 9 user:ann: a b", "new", "x"].map(text).to_vec()),
        ]);
        let list = Value::Array(vec![one]);
        let expected = LogEntry {
            id: Id(5, 1),
            follows: Some(Id(5, 0)),
            control: Some(Control::Revoke(Revocation {
                subject: Subject::User("ann: a b".into()),
                issued_before: 7,
                forget_after: 9,
            })),
        };
        let map = Value::Map(vec![(text("log"), list.clone())]);
        assert_eq!(entries(map).as_deref(), Ok(&[expected][..]));
        let pairs = Value::Array(vec![Value::Array(vec![text("log"), list])]);
        assert_eq!(entries(pairs).map(|entries| entries.len()), Ok(1));
        assert_eq!(entries(Value::Nil), Ok(vec![]));
        assert!(entries(Value::Okay).is_err());
    }

    proptest! {
        #[test]
        fn no_text_from_the_network_panics(words in "[rkt] ([0-9-]{0,22} ){0,3}(user|session|token|x)?:?.{0,9}") {
            let _ = control(&words);
            let _ = Id::parse(&words);
        }
    }
}
