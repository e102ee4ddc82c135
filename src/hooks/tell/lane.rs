//! One lane of one hook: gathers what waits, posts it, forgets it once it is taken, and only then goes on. Rooms of one
//! partition are always in the same lane, which is what keeps each room's order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::LANES;
use super::batch::Batch;
use super::overseer::Overseer;
use super::pace::Pace;
use super::queue::Queues;
use crate::backplane::contract::{OutboxAnswer, OutboxAsk, OutboxDone, OutboxPage, OutboxPiece};
use crate::backplane::outbox::{Backlog, Place};
use crate::hooks::{Endpoint, HookFailed};
use crate::runtime::now_ms;
use crate::telemetry::metrics::TellMetrics;

/// Bytes of records in one request, unless a single one is larger.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// How much longer than a request may take an outbox stays ours.
const HOLD_MORE: Duration = Duration::from_secs(5);

/// After the backplane did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A hook that is told of things.
pub(super) struct Hook {
    /// In the list of outboxes.
    pub(super) at: usize,
    pub(super) endpoint: Endpoint,
    pub(super) pace: Pace,
    pub(super) batch_events: usize,
    pub(super) batch_wait: Duration,
    pub(super) timeout: Duration,
    pub(super) metrics: Arc<TellMetrics>,
    /// When the oldest event that each lane has in hand happened, in ms since the Unix epoch; 0: it has none.
    pub(super) oldest_ms: [AtomicU64; LANES],
}

/// Where what is told comes from.
#[derive(Clone)]
pub(super) enum Source {
    Queues(Arc<Queues>),
    Outboxes(Arc<Overseer>),
}

/// What was gathered, and how it is forgotten.
enum Gathered {
    /// The oldest of the lane's queue.
    Queue(Vec<Box<str>>),
    Outboxes(Vec<Taken>),
}

/// What was read of one outbox.
struct Taken {
    place: Place,
    page: OutboxPage,
    /// So many of its records are told.
    count: usize,
    /// More may lie behind the page.
    is_full: bool,
}

impl Hook {
    /// Tells, until it is dropped.
    pub(super) async fn run(self: Arc<Self>, lane: usize, source: Source) {
        let mut events = self.batch_events;
        loop {
            let gathered = self.gather(lane, &source, events).await;
            let batch = gathered.batch();
            let oldest_ms = batch.oldest_ms.unwrap_or(0);
            self.oldest_ms[lane].store(oldest_ms, Ordering::Relaxed);
            if batch.events > 0 {
                match self.post(&batch).await {
                    // Larger ones are tried little by little: what was too large once mostly is again.
                    Ok(()) => events = (events + events.div_ceil(8)).min(self.batch_events),
                    Err(HookFailed::Status { status: 413, .. }) if batch.events > 1 => {
                        // Smaller ones may be taken.
                        events = usize::try_from(batch.events / 2).unwrap_or(1).max(1);
                        source.give_back(&gathered);
                        continue;
                    }
                    Err(_) => {
                        source.give_back(&gathered);
                        continue;
                    }
                }
            }
            self.count(&batch, &source);
            source.forget(self.at, lane, &gathered).await;
            self.oldest_ms[lane].store(0, Ordering::Relaxed);
        }
    }

    /// Waits for something to tell, and for leave to tell it.
    async fn gather(&self, lane: usize, source: &Source, events: usize) -> Gathered {
        loop {
            let gathered = match source {
                Source::Queues(queues) => {
                    let records = queues.peek(self.at, lane, events, BATCH_BYTES_MAX);
                    if records.is_empty() {
                        queues.filled(self.at, lane).await;
                        // More may come in a moment.
                        tokio::time::sleep(self.batch_wait).await;
                        continue;
                    }
                    Gathered::Queue(records)
                }
                Source::Outboxes(overseer) => {
                    let places = overseer.take(self.at, lane, events, self.batch_wait).await;
                    Gathered::Outboxes(self.read(overseer, &places, events).await)
                }
            };
            if !gathered.is_empty() {
                return gathered;
            }
        }
    }

    /// Reads outboxes, and takes those from their holders who are no longer there.
    async fn read(&self, overseer: &Overseer, places: &[Place], events: usize) -> Vec<Taken> {
        let Some(me) = overseer.me() else {
            return vec![];
        };
        let piece = OutboxPiece {
            events,
            bytes: BATCH_BYTES_MAX,
            hold: self.timeout + HOLD_MORE,
        };
        let mut asks: Vec<_> = (places.iter().filter(|place| overseer.is_mine(place.partition)))
            .map(|place| OutboxAsk {
                place: *place,
                instead_of: None,
            })
            .collect();
        let (mut pages, mut left, mut bytes) = (Vec::new(), events, BATCH_BYTES_MAX);
        while !asks.is_empty() {
            let answers = match overseer.backplane.outbox_read(&me, &asks, piece).await {
                Ok(answers) => answers,
                Err(error) => {
                    tracing::debug!(%error, "outboxes are read again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    break;
                }
            };
            let mut again = Vec::new();
            for (ask, answer) in asks.into_iter().zip(answers) {
                match answer {
                    Ok(OutboxAnswer::Page(page)) if !page.records.is_empty() => {
                        let count = fitting(&page, left, &mut bytes, pages.is_empty());
                        left -= count;
                        pages.push(Taken {
                            is_full: is_full(&page, piece),
                            place: ask.place,
                            page,
                            count,
                        });
                    }
                    Ok(OutboxAnswer::Busy(holder)) if ask.instead_of.is_none() => {
                        if overseer.is_gone(&holder).await {
                            again.push(OutboxAsk {
                                instead_of: Some(holder),
                                ..ask
                            });
                        }
                    }
                    // The next look finds what is there.
                    Ok(OutboxAnswer::Page(_) | OutboxAnswer::Busy(_)) | Err(_) => {}
                }
            }
            asks = again;
        }
        pages
    }

    /// Tries once, when it is its turn.
    async fn post(&self, batch: &Batch) -> Result<(), HookFailed> {
        let turn = self.pace.turn().await;
        if turn.is_trial() {
            self.metrics.retry();
        }
        let body = Bytes::from(batch.body.clone());
        match self.endpoint.post(&batch.id, body, batch.trace.as_deref()).await {
            Ok(_) => {
                turn.succeeded();
                Ok(())
            }
            Err(failed) => {
                let asked = match failed {
                    HookFailed::Status { retry_after, .. } => retry_after,
                    HookFailed::CircuitOpen { for_ms } => Some(Duration::from_millis(for_ms)),
                    HookFailed::Busy | HookFailed::Call(_) | HookFailed::Malformed(_) => None,
                };
                if let HookFailed::Status { status: 413, .. } = failed
                    && batch.events > 1
                {
                    turn.succeeded();
                    return Err(failed);
                }
                if let HookFailed::Status {
                    status: status @ 400..=499,
                    ..
                } = failed
                    && !matches!(status, 408 | 429)
                {
                    // Told again all the same: an event that is thrown away is lost, a route that is missing can be made.
                    tracing::error!(
                        hook = self.endpoint.name(),
                        status,
                        events = batch.events,
                        "a hook refuses what it is told; nothing behind it is told until it does not"
                    );
                }
                turn.failed(asked, spread());
                Err(failed)
            }
        }
    }

    fn count(&self, batch: &Batch, source: &Source) {
        self.metrics.delivered(batch.events);
        let lost = match source {
            // Counted when they were lost.
            Source::Queues(_) => batch.unreadable,
            Source::Outboxes(_) => batch.lost + batch.unreadable,
        };
        if lost > 0 {
            self.metrics.lost(lost);
            let hook = self.endpoint.name();
            tracing::error!(hook, lost, "events for a hook were lost: too many had to wait for it");
        }
    }

    /// What waits for it, and since when; for the gauges.
    pub(super) fn measure(&self, backlog: Backlog) {
        let oldest_ms = self
            .oldest_ms
            .iter()
            .map(|oldest_ms| oldest_ms.load(Ordering::Relaxed))
            .filter(|oldest_ms| *oldest_ms > 0)
            .min();
        let lag_ms = oldest_ms.map_or(0, |oldest_ms| now_ms().saturating_sub(oldest_ms));
        self.metrics.waiting(backlog.events, lag_ms);
    }
}

/// How many records of a page fit into a batch that has room for `left` and `bytes`.
fn fitting(page: &OutboxPage, left: usize, bytes: &mut usize, is_first: bool) -> usize {
    let mut count = 0;
    for record in page.records.iter().take(left) {
        if record.len() > *bytes && !(is_first && count == 0) {
            break;
        }
        *bytes = bytes.saturating_sub(record.len());
        count += 1;
    }
    count
}

/// Whether an outbox may have more than this: the page ends at one of its bounds, or too near to one to know.
fn is_full(page: &OutboxPage, piece: OutboxPiece) -> bool {
    let bytes: usize = page.records.iter().map(bytes::Bytes::len).sum();
    page.records.len() >= piece.events || bytes >= piece.bytes / 2
}

/// In `0.0..1.0`.
fn spread() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u64_pair().0 >> 32;
    f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

impl Gathered {
    fn is_empty(&self) -> bool {
        match self {
            Self::Queue(records) => records.is_empty(),
            Self::Outboxes(pages) => pages.iter().all(|taken| taken.count == 0),
        }
    }

    fn batch(&self) -> Batch {
        match self {
            Self::Queue(records) => Batch::of(records.iter().map(|record| record.as_bytes())),
            Self::Outboxes(pages) => {
                let told = pages
                    .iter()
                    .flat_map(|taken| taken.page.records.iter().take(taken.count));
                Batch::of(told.map(|record| &**record))
            }
        }
    }
}

impl Source {
    /// It is to be told again.
    fn give_back(&self, gathered: &Gathered) {
        if let (Self::Outboxes(overseer), Gathered::Outboxes(pages)) = (self, gathered) {
            for taken in pages {
                overseer.add(taken.place, taken.page.records.len() as u64);
            }
        }
    }

    /// It was told.
    async fn forget(&self, hook: usize, lane: usize, gathered: &Gathered) {
        match (self, gathered) {
            (Self::Queues(queues), Gathered::Queue(records)) => queues.told(hook, lane, records.len()),
            (Self::Outboxes(overseer), Gathered::Outboxes(pages)) => forget(overseer, pages).await,
            _ => {}
        }
    }

    /// What waits for a hook.
    pub(super) fn backlog(&self, hook: usize) -> Backlog {
        match self {
            Self::Queues(queues) => queues.backlog(hook),
            Self::Outboxes(overseer) => overseer.backlog(hook),
        }
    }
}

/// Moves the cursors. Where that fails the same is told again, under the same ids.
async fn forget(overseer: &Overseer, pages: &[Taken]) {
    if let Some(last) = pages.iter().rfind(|taken| taken.count > 0) {
        overseer.pass_on_after(last.place);
    }
    let done: Vec<_> = pages
        .iter()
        .map(|taken| OutboxDone {
            place: taken.place,
            lease: Arc::clone(&taken.page.lease),
            upto: taken.page.first + taken.count as u64 - 1,
            release: !overseer.is_mine(taken.place.partition),
        })
        .collect();
    match overseer.backplane.outbox_done(&done).await {
        Ok(answers) => {
            for (taken, answer) in pages.iter().zip(answers) {
                let more = taken.page.records.len() - taken.count;
                match answer {
                    // At once, not with the next look.
                    Ok(true) if more > 0 || taken.is_full => overseer.add(taken.place, more.max(1) as u64),
                    Ok(true) => {}
                    Ok(false) => tracing::info!(
                        partition = taken.place.partition,
                        "another node has taken an outbox over; it may tell some events again"
                    ),
                    Err(error) => tracing::debug!(%error, "some events are told again"),
                }
            }
        }
        Err(error) => {
            tracing::debug!(%error, "some events are told again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
