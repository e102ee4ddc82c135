//! What was said in one room, as far back as it is kept. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::websocket::encoded::Frame;

/// How much is kept of each room.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Messages.
    pub messages: usize,
    /// Bytes of frames.
    pub bytes: usize,
    /// Since it was said.
    pub age: Duration,
}

impl Kept {
    /// What a room may keep while the node keeps too much.
    #[must_use]
    pub fn pressed(self) -> Self {
        Self {
            bytes: self.bytes / 4,
            ..self
        }
    }
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    time_ms: u64,
    frame: Frame,
}

/// The newest messages, in order, without holes.
#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
    /// The seq before the oldest entry: what comes after it is here.
    base: u64,
    bytes: usize,
}

impl History {
    /// Begins after `seq`, with nothing.
    #[must_use]
    pub fn after_seq(seq: u64) -> Self {
        Self {
            base: seq,
            ..Self::default()
        }
    }

    /// The seq of the newest message ever kept; 0 before the first.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.entries.back().map_or(self.base, |entry| entry.seq)
    }

    /// The oldest seq that is still here; one above the head when nothing is.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.entries.front().map_or(self.base + 1, |entry| entry.seq)
    }

    /// The oldest seq whose successors are all here.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the successor of `head()`, and forgets what is too old or too much.
    pub fn push(&mut self, seq: u64, time_ms: u64, frame: Frame, kept: &Kept) {
        self.bytes += frame.bytes().len();
        self.entries.push_back(Entry { seq, time_ms, frame });
        self.trim(time_ms, kept);
    }

    /// Puts the message with the seq `base()` in front, of which `follows` is the predecessor; false if it does not fit any
    /// more.
    pub fn push_older(&mut self, follows: u64, time_ms: u64, frame: Frame, kept: &Kept) -> bool {
        let bytes = frame.bytes().len();
        if self.entries.len() >= kept.messages || self.bytes + bytes > kept.bytes {
            return false;
        }
        self.bytes += bytes;
        self.entries.push_front(Entry {
            seq: self.base,
            time_ms,
            frame,
        });
        self.base = follows;
        true
    }

    /// Forgets what lies above `seq`, as if it had never been said. What lies below stays, unless nothing ties it to
    /// `seq`.
    pub fn rewind(&mut self, seq: u64) {
        while self.entries.back().is_some_and(|entry| entry.seq > seq) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry.frame.bytes().len();
            }
        }
        if self.head() != seq {
            *self = Self::after_seq(seq);
        }
    }

    /// Forgets what is too old or too much. The numbers go on from where they were.
    pub fn trim(&mut self, now_ms: u64, kept: &Kept) {
        let oldest_ms = now_ms.saturating_sub(u64::try_from(kept.age.as_millis()).unwrap_or(u64::MAX));
        while let Some(entry) = self.entries.front() {
            let over = self.entries.len() > kept.messages || self.bytes > kept.bytes || entry.time_ms < oldest_ms;
            if !over {
                break;
            }
            self.bytes -= entry.frame.bytes().len();
            self.base = entry.seq;
            self.entries.pop_front();
        }
        // A burst must not leave its ring behind.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Whether everything after `seq` is still here, and `seq` has been said at all.
    #[must_use]
    pub fn covers(&self, seq: u64) -> bool {
        self.base <= seq && seq <= self.head()
    }

    /// The messages after `seq`, ascending; those that were forgotten are missing at the front.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = (u64, &Frame)> {
        let skip = self.entries.partition_point(|entry| entry.seq <= seq);
        self.entries.range(skip..).map(|entry| (entry.seq, &entry.frame))
    }

    /// The messages before `seq`, descending.
    pub fn before(&self, seq: u64) -> impl Iterator<Item = (u64, &Frame)> {
        let end = self.entries.partition_point(|entry| entry.seq < seq);
        self.entries.range(..end).rev().map(|entry| (entry.seq, &entry.frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::frame::Opcode;

    const KEPT: Kept = Kept {
        messages: 3,
        bytes: 1_000,
        age: Duration::from_secs(10),
    };

    fn frame(bytes: usize) -> Frame {
        Frame::of(Opcode::Text, &vec![b'x'; bytes])
    }

    fn filled(count: u64) -> History {
        let mut history = History::default();
        for i in 0..count {
            history.push(i + 1, i, frame(10), &KEPT);
        }
        history
    }

    #[test]
    fn the_newest_messages_stay_and_keep_their_numbers() {
        let history = filled(5);
        assert_eq!((history.first(), history.head(), history.len()), (3, 5, 3));
        let seqs = |after| history.after(after).map(|(seq, _)| seq).collect::<Vec<_>>();
        assert_eq!(seqs(3), [4, 5]);
        assert_eq!(seqs(0), [3, 4, 5]);
        assert_eq!(seqs(5), [0; 0]);
        assert_eq!(history.before(5).map(|(seq, _)| seq).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(history.before(u64::MAX).count(), 3);
    }

    #[test]
    fn a_position_is_covered_from_one_before_the_oldest_to_the_head() {
        let history = filled(5);
        assert!([2, 3, 5].into_iter().all(|seq| history.covers(seq)));
        assert!(![1, 6].into_iter().any(|seq| history.covers(seq)));
        assert!(History::default().covers(0));
    }

    #[test]
    fn age_and_bytes_bound_it_too() {
        let mut history = filled(3);
        history.trim(10_002, &KEPT);
        assert_eq!((history.first(), history.head()), (3, 3));
        history.trim(99_000, &KEPT);
        assert_eq!((history.first(), history.head(), history.bytes()), (4, 3, 0));
        history.push(4, 99_001, frame(900), &KEPT);
        history.push(5, 99_002, frame(900), &KEPT);
        assert_eq!(
            (history.first(), history.head()),
            (5, 5),
            "two of 900 bytes do not fit 1,000"
        );
    }

    #[test]
    fn older_messages_are_put_in_front_until_it_is_full() {
        let mut history = History::after_seq(9);
        assert!(history.push_older(7, 0, frame(10), &KEPT), "numbers may have gaps");
        assert!(history.push_older(6, 0, frame(10), &KEPT));
        assert_eq!(history.after(0).map(|(seq, _)| seq).collect::<Vec<_>>(), [7, 9]);
        assert!(history.covers(6) && !history.covers(5));
        assert!(history.push_older(5, 0, frame(10), &KEPT));
        assert!(!history.push_older(4, 0, frame(10), &KEPT), "three are kept");
        assert_eq!((history.first(), history.base(), history.head()), (6, 5, 9));
    }

    #[test]
    fn a_rewind_forgets_what_lies_above_and_whatever_is_not_tied_to_it() {
        let mut history = filled(3);
        history.rewind(2);
        assert_eq!((history.base(), history.head(), history.len()), (0, 2, 2));
        history.rewind(7);
        assert_eq!(
            (history.base(), history.head(), history.len(), history.bytes()),
            (7, 7, 0, 0)
        );
    }
}
