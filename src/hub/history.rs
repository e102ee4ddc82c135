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

#[derive(Debug)]
struct Entry {
    time_ms: u64,
    frame: Frame,
}

/// A ring of the newest messages, in order, without holes: the entry at `i` has the seq `first + i`.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<Entry>,
    /// The seq of the oldest entry, or of the next one when there is none.
    first: u64,
    bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 1,
            bytes: 0,
        }
    }
}

impl History {
    /// The seq of the newest message ever kept; 0 before the first.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// The oldest seq that is still here; one above the head when nothing is.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
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

    /// Appends the message with the seq `head() + 1`, and forgets what is too old or too much.
    pub fn push(&mut self, time_ms: u64, frame: Frame, kept: &Kept) {
        self.bytes += frame.bytes().len();
        self.entries.push_back(Entry { time_ms, frame });
        self.trim(time_ms, kept);
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
            self.entries.pop_front();
            self.first += 1;
        }
        // A burst must not leave its ring behind.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Whether everything after `seq` is still here, and `seq` has been said at all.
    #[must_use]
    pub fn covers(&self, seq: u64) -> bool {
        seq <= self.head() && seq + 1 >= self.first
    }

    /// The messages after `seq`, ascending; those that were forgotten are missing at the front.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = (u64, &Frame)> {
        let skip = seq.saturating_add(1).saturating_sub(self.first);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries
            .range(skip..)
            .enumerate()
            .map(move |(i, entry)| (self.first + (skip + i) as u64, &entry.frame))
    }

    /// The messages before `seq`, descending.
    pub fn before(&self, seq: u64) -> impl Iterator<Item = (u64, &Frame)> {
        let end = usize::try_from(seq.saturating_sub(self.first))
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        (0..end)
            .rev()
            .map(move |i| (self.first + i as u64, &self.entries[i].frame))
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
            history.push(i, frame(10), &KEPT);
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
        history.push(99_001, frame(900), &KEPT);
        history.push(99_002, frame(900), &KEPT);
        assert_eq!(
            (history.first(), history.head()),
            (5, 5),
            "two of 900 bytes do not fit 1,000"
        );
    }
}
