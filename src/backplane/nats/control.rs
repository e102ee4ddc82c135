//! What is told to all nodes: the control log, burials, and lineages that others changed.
//!
//! Every message of the log is told live, canaries among them, so its numbers have no gaps: who hears a later one than the
//! next asks for what is between. A second without a canary is not a quiet log but a broken one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Message, Subscriber};
use futures_util::StreamExt;
use parking_lot::Mutex;

use crate::backplane::contract::{Failed, Scope};

use super::Nats;
use super::api::Info;
use super::clock::local_ms;
use super::epochs::OfStream;
use super::lease::last_word;
use super::link::Link;
use super::names::STREAMS;
use super::problem::Problem;
use super::revocations::read;
use super::stored::header;

/// A node whose canaries were not heard for so long is no peer any more.
const PEER_AGE_MAX: Duration = Duration::from_secs(60);

/// Canaries of a node before its silence means anything: a command such as `conclave kick` is there for one or two.
const PEER_HEARD_MIN: u32 = 3;

/// How far the log was heard.
#[derive(Default)]
pub(super) struct Position {
    /// Which log, by its making, and the newest seq that was heard.
    at: Mutex<(String, u64)>,
    /// Each node's newest canary, this one's included.
    canaries: Mutex<HashMap<Box<str>, Singer>>,
}

struct Singer {
    heard: Instant,
    /// Canaries since it is known.
    times: u32,
}

impl Nats {
    /// Stores a canary in the log.
    pub(super) async fn sing(&self, link: &Link) -> Result<(), Problem> {
        let subject = self.settings.names.subject(&format!("k.n.{}", self.node));
        link.store(subject, HeaderMap::new(), local_ms().to_string().into())
            .await?;
        Ok(())
    }

    /// So long ago this node heard itself.
    pub(super) fn heard_itself(&self) -> Option<Duration> {
        self.heard
            .canaries
            .lock()
            .get(&*self.node)
            .map(|singer| singer.heard.elapsed())
    }

    pub(super) fn hears_anew(&self) {
        self.heard.canaries.lock().clear();
    }

    /// The oldest of the newest canaries of the others, and how many nodes there are.
    pub(super) fn peers_heard(&self) -> (Duration, usize) {
        let mut canaries = self.heard.canaries.lock();
        canaries.retain(|_, singer| singer.heard.elapsed() < PEER_AGE_MAX);
        let is_peer = |node: &str, singer: &Singer| *node != *self.node && singer.times >= PEER_HEARD_MIN;
        let others = canaries.iter().filter(|(node, singer)| is_peer(node, singer));
        let oldest = others.map(|(_, singer)| singer.heard.elapsed()).max();
        let oldest = oldest.unwrap_or_default();
        (oldest, canaries.len().max(1))
    }

    /// Goes on where this node stood, as far as the log still knows that place. Never returns but for trouble.
    pub(super) async fn follow_log(&self, link: &Link, mut live: Subscriber, log: &Info) -> Result<(), Problem> {
        let newest = log.state.last_seq;
        let known = {
            let mut at = self.heard.at.lock();
            if at.0 != log.created || at.1 > newest {
                *at = (log.created.clone(), newest);
            }
            at.1
        };
        if known < newest {
            self.catch_up(link, newest).await?;
        }
        while let Some(message) = live.next().await {
            let Some(seq) = header(&message, "Nats-Sequence") else {
                continue;
            };
            let at = self.heard.at.lock().1;
            if seq <= at {
                continue;
            }
            if seq > at + 1 {
                self.catch_up(link, seq - 1).await?;
            }
            self.heard.at.lock().1 = seq;
            self.hear_log(&message);
        }
        Err(Failed::Unknown.into())
    }

    /// Hears what was stored and not told. What the log has forgotten is among the revocations that are loaded anew.
    async fn catch_up(&self, link: &Link, up_to: u64) -> Result<(), Problem> {
        let names = &self.settings.names;
        let (stream, entries) = (names.stream("log"), names.subject("k.e.*"));
        let mut next = self.heard.at.lock().1 + 1;
        while let Some(missed) = link.next(&stream, &entries, next).await? {
            if missed.seq > up_to {
                break;
            }
            next = missed.seq + 1;
            self.hear_entry(&missed.payload);
        }
        self.heard.at.lock().1 = up_to;
        self.tell_sink(|sink| sink.control_suspect());
        Ok(())
    }

    fn hear_log(&self, message: &Message) {
        let subject = message.subject.as_str();
        let mut words = subject.rsplit('.');
        let node = words.next().unwrap_or_default();
        if words.next() == Some("e") {
            self.hear_entry(&message.payload);
            return;
        }
        let heard = Instant::now();
        let mut canaries = self.heard.canaries.lock();
        match canaries.get_mut(node) {
            Some(singer) => (singer.heard, singer.times) = (heard, singer.times.saturating_add(1)),
            None => drop(canaries.insert(node.into(), Singer { heard, times: 1 })),
        }
        drop(canaries);
        let sent_ms = std::str::from_utf8(&message.payload)
            .ok()
            .and_then(|sent| sent.parse().ok());
        if let Some(sent_ms) = sent_ms.filter(|_| node == self.node) {
            let lag = Duration::from_millis(local_ms().saturating_sub(sent_ms));
            self.metrics.backplane().lag(lag.as_secs_f64());
        }
    }

    fn hear_entry(&self, entry: &[u8]) {
        match read(entry) {
            Some(control) => self.tell_sink(|sink| sink.control(control)),
            None => tracing::warn!("NATS: the control log holds something that this version cannot read"),
        }
    }

    /// Hears of burials and of changed lineages. Never returns but for trouble.
    pub(super) async fn follow_state(&self, link: &Link, mut live: Subscriber) -> Result<(), Problem> {
        while let Some(message) = live.next().await {
            let mut words = message.subject.as_str().rsplit('.');
            let last = words.next().unwrap_or_default();
            match (words.next(), last.parse()) {
                (Some("x"), _) if header(&message, "Nats-Sequence").is_some() => {
                    self.hear_burials(last_word(message.subject.as_str()));
                }
                (Some("g"), Ok(stream)) if stream < STREAMS => self.hear_lineage(link, stream).await?,
                _ => {}
            }
        }
        Err(Failed::Unknown.into())
    }

    /// Somebody changed a lineage: whatever was known of that stream is in doubt.
    pub(super) async fn hear_lineage(&self, link: &Link, stream: usize) -> Result<(), Problem> {
        if self.epochs.load(link, &self.settings.names, stream).await? {
            self.doubt(stream);
        }
        Ok(())
    }

    pub(super) fn doubt(&self, stream: usize) {
        self.marks.forget(stream);
        self.tell_sink(|sink| sink.suspect(Scope::Partitions(&OfStream(stream))));
    }

    /// Subscriptions of the node itself.
    pub(super) async fn subscribe_all(&self, link: &Arc<Link>) -> Result<(Subscriber, Subscriber), Problem> {
        let names = &self.settings.names;
        let log = link.subscribe(names.subject("y.*.*")).await?;
        let state = link.subscribe(names.subject("w.*.*")).await?;
        Ok((log, state))
    }
}
