//! What a room's log keeps: the successors of a position, and pages backwards.
//!
//! Numbers of a stream leave gaps in a room, so a log does not show whether something is missing between two of its
//! messages. What shows it: the message at the position itself is still kept (the oldest go first), or the first one kept
//! is its neighbour in the whole stream, or a record of the room vouches that nothing was dropped since.

use std::time::Duration;

use crate::backplane::contract::{Entry, Found, PAGE_ENTRIES_MAX, Page, Position, Range, RoomKey};
use crate::backplane::lineage::{Lineage, Verdict};

use super::Nats;
use super::api::Scan;
use super::clock::millis;
use super::link::Link;
use super::names::stream_of;
use super::problem::Problem;
use super::stored::Stored;

/// A message that is kept: its seq, and when it was stored.
type Kept = (u64, u64);

/// One room's log over one link.
struct Reader<'a> {
    nats: &'a Nats,
    link: &'a Link,
    room: &'a RoomKey,
    /// Messages that can be read.
    messages_max: usize,
    /// Of at most this age.
    age: Duration,
    stream: String,
    subject: String,
    head: u64,
    /// Whether any message is kept.
    has_any: bool,
}

impl Nats {
    pub(super) async fn successors(&self, room: &RoomKey, after: &Position, limit: usize) -> Result<Range, Problem> {
        let limit = limit.min(PAGE_ENTRIES_MAX);
        let link = self.link()?;
        let Some(reader) = Reader::new(self, &link, room).await? else {
            return Ok(Range {
                found: Found::None,
                head: 0,
                lineage: Lineage::default(),
            });
        };
        let lineage = self.epochs.of(stream_of(room.partition));
        let found = match lineage.judge(&after.epoch, after.seq, reader.head) {
            Verdict::Unknown => Found::Unknown,
            // The room was forgotten, and made again.
            Verdict::Forked(_) if !reader.has_any => Found::Trimmed(reader.position(reader.head)),
            Verdict::Forked(last) => Found::Forked(reader.newest_up_to(last).await?),
            Verdict::Good if after.seq == reader.head => Found::Entries(Vec::new()),
            // Somebody emptied the stream.
            Verdict::Good if after.seq > reader.head => Found::Forked(reader.head),
            Verdict::Good => reader.after(after.seq, limit).await?,
        };
        Ok(Range {
            found,
            head: reader.head,
            lineage: self.epochs.up_to(stream_of(room.partition), reader.head),
        })
    }

    pub(super) async fn page(&self, room: &RoomKey, seq: u64, limit: usize) -> Result<Page, Problem> {
        let limit = limit.min(PAGE_ENTRIES_MAX);
        let link = self.link()?;
        match Reader::new(self, &link, room).await? {
            Some(reader) => reader.page(seq, limit).await,
            None => Ok(Page::default()),
        }
    }
}

impl<'a> Reader<'a> {
    /// `None` if there is no such room.
    async fn new(nats: &'a Nats, link: &'a Link, room: &'a RoomKey) -> Result<Option<Self>, Problem> {
        let newest = nats.newest(link, room).await?;
        let has_any = newest.is_some();
        let head = match newest {
            Some((seq, _)) => Some(seq),
            None => nats.known(link, room).await?.map(|known| known.head()),
        };
        let settings = &nats.settings;
        let class = settings.classes.of(room.called());
        let (messages_max, age) = if room.is_post() {
            (settings.stream_messages, settings.stream_age)
        } else {
            (class.history_messages, class.history_age)
        };
        let names = &settings.names;
        Ok(head.map(|head| Self {
            nats,
            link,
            room,
            messages_max,
            age,
            stream: names.rooms_stream(stream_of(room.partition)),
            subject: names.messages(room),
            head,
            has_any,
        }))
    }

    async fn after(&self, seq: u64, limit: usize) -> Result<Found, Problem> {
        let found = self.scan(seq, limit + 1, false).await?;
        let entries: Vec<Stored> = found
            .into_iter()
            .filter(|stored| stored.seq > seq)
            .take(limit)
            .collect();
        // Asked after reading: what is dropped meanwhile is older than what shows that nothing is missing.
        let young = entries.first().is_none_or(|first| !self.is_old(first.stored_ms));
        if !young || !self.is_whole(seq, entries.first()).await? || self.are_too_many(entries.first()).await? {
            return Ok(Found::Trimmed(self.oldest().await?));
        }
        Ok(Found::Entries(self.chain(entries, seq)))
    }

    /// Whether more follow from this one on than can be read, though the stream still keeps them for other classes.
    async fn are_too_many(&self, first: Option<&Stored>) -> Result<bool, Problem> {
        let Some(first) = first.filter(|_| self.messages_max < self.nats.settings.stream_messages) else {
            return Ok(false);
        };
        let kept = self.kept().await?;
        let readable = kept.get(self.readable(&kept));
        Ok(readable.is_none_or(|(oldest, _)| first.seq < *oldest))
    }

    /// Whether nothing between `seq` and the first message after it was dropped.
    async fn is_whole(&self, seq: u64, first: Option<&Stored>) -> Result<bool, Problem> {
        if seq > 0 && self.has(seq).await? {
            return Ok(true);
        }
        // Nothing is dropped for its number until there is one more than can be read.
        let kept = self.kept().await?;
        if kept.len() > self.nats.settings.stream_messages {
            return Ok(false);
        }
        if first.is_some_and(|first| first.seq == seq + 1 && kept.first().is_some_and(|(kept, _)| *kept == first.seq)) {
            return Ok(true);
        }
        let age_ms = millis(self.nats.settings.stream_age);
        let known = self.nats.known(self.link, self.room).await?;
        Ok(known.is_some_and(|known| known.vouches_for(seq, self.nats.clock.now_ms(), age_ms)))
    }

    async fn has(&self, seq: u64) -> Result<bool, Problem> {
        let found = self.link.at(&self.stream, seq).await?;
        Ok(found.is_some_and(|found| found.subject == self.subject))
    }

    /// The position from which everything can be read.
    async fn oldest(&self) -> Result<Position, Problem> {
        let kept = self.kept().await?;
        let seq = match (kept.get(self.readable(&kept)), kept.last()) {
            (Some((first, _)), _) => match self.readable(&kept).checked_sub(1) {
                Some(before) => kept[before].0,
                None => first - 1,
            },
            (None, Some((last, _))) => *last,
            (None, None) => self.head,
        };
        Ok(self.position(seq))
    }

    async fn page(&self, seq: u64, limit: usize) -> Result<Page, Problem> {
        let kept = self.kept().await?;
        let first = self.readable(&kept);
        let end = kept.partition_point(|(kept, _)| *kept < seq).max(first);
        let begin = end.saturating_sub(limit).max(first);
        let Some((from, _)) = kept[begin..end].first() else {
            return Ok(Page::default());
        };
        let mut entries = self.scan(*from, end - begin, false).await?;
        entries.retain(|stored| stored.seq < seq);
        let follows = begin.checked_sub(1).map_or(0, |before| kept[before].0);
        Ok(Page {
            entries: self.chain(entries, follows),
            more: begin > first,
        })
    }

    /// The newest message of this room at or below `seq`, or `seq` if none is kept.
    async fn newest_up_to(&self, seq: u64) -> Result<u64, Problem> {
        if seq >= self.head {
            return Ok(self.head);
        }
        let kept = self.kept().await?;
        let newer = kept.partition_point(|(kept, _)| *kept <= seq);
        Ok(newer.checked_sub(1).map_or(seq, |at| kept[at].0))
    }

    /// Index of the first of these that is to be read: neither too old nor too many.
    fn readable(&self, kept: &[Kept]) -> usize {
        let young = kept.partition_point(|(_, stored_ms)| self.is_old(*stored_ms));
        young.max(kept.len().saturating_sub(self.messages_max))
    }

    fn is_old(&self, stored_ms: u64) -> bool {
        self.nats.clock.now_ms().saturating_sub(stored_ms) > millis(self.age)
    }

    async fn kept(&self) -> Result<Vec<Kept>, Problem> {
        let all = self.scan(1, self.nats.settings.stream_messages + 1, true).await?;
        Ok(all.into_iter().map(|stored| (stored.seq, stored.stored_ms)).collect())
    }

    /// At most `max` messages from `from` on. If the copy that answered was behind, the leader is asked for the rest.
    async fn scan(&self, from: u64, max: usize, bare: bool) -> Result<Vec<Stored>, Problem> {
        let which = Scan {
            stream: &self.stream,
            subject: &self.subject,
            from,
            max,
            bare,
        };
        let mut found = self.link.scan(&which).await?;
        let mut next = found.last().map_or(from, |last| last.seq + 1).max(1);
        while found.len() < max && next <= self.head {
            let Some(stored) = self.link.next(&self.stream, &self.subject, next).await? else {
                break;
            };
            next = stored.seq + 1;
            found.push(stored);
        }
        Ok(found)
    }

    fn chain(&self, stored: Vec<Stored>, mut follows: u64) -> Vec<Entry> {
        let entries = stored.into_iter().map(|stored| {
            let seq = stored.seq;
            Entry {
                position: self.position(seq),
                follows: std::mem::replace(&mut follows, seq),
                time_ms: stored.time_ms,
                envelope: stored.payload,
            }
        });
        entries.collect()
    }

    fn position(&self, seq: u64) -> Position {
        let stream = stream_of(self.room.partition);
        Position {
            epoch: self.nats.epochs.epoch_of(stream, seq),
            seq,
        }
    }
}
