//! What was said in one room, as far back as it is kept. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

/// How much is kept of each room.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Messages.
    pub messages: usize,
    /// Bytes of envelopes.
    pub bytes: usize,
    /// Since it was said.
    pub age: Duration,
}

/// A message without its number.
#[derive(Debug, Clone)]
pub struct Line {
    pub time_ms: u64,
    pub envelope: Bytes,
}

/// The newest messages, in order, without holes: the line at `i` has the seq `first + i`.
#[derive(Debug, Clone)]
pub struct Ring {
    lines: VecDeque<Line>,
    /// The seq of the oldest line, or of the next one when there is none.
    first: u64,
    bytes: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            first: 1,
            bytes: 0,
        }
    }
}

impl Ring {
    /// The seq of the newest message ever said; 0 before the first.
    pub fn head(&self) -> u64 {
        self.first + self.lines.len() as u64 - 1
    }

    /// The oldest seq that is still here; one above the head when nothing is.
    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the newest message was said; 0 when nothing is kept.
    pub fn said_ms(&self) -> u64 {
        self.lines.back().map_or(0, |line| line.time_ms)
    }

    /// Appends the message with the seq `head() + 1`.
    pub fn push(&mut self, line: Line) {
        self.bytes += line.envelope.len();
        self.lines.push_back(line);
    }

    /// Forgets what is too old or too much. The numbers go on from where they were.
    pub fn trim(&mut self, now_ms: u64, kept: &Kept) {
        let oldest_ms = now_ms.saturating_sub(u64::try_from(kept.age.as_millis()).unwrap_or(u64::MAX));
        while let Some(line) = self.lines.front() {
            let over = self.lines.len() > kept.messages || self.bytes > kept.bytes || line.time_ms < oldest_ms;
            if !over {
                break;
            }
            self.bytes -= line.envelope.len();
            self.lines.pop_front();
            self.first += 1;
        }
        // A burst must not leave its ring behind.
        if self.lines.capacity() > 64 && self.lines.len() < self.lines.capacity() / 4 {
            self.lines.shrink_to(self.lines.len() * 2);
        }
    }

    /// At most `limit` messages from `seq` on, ascending; those that were forgotten are missing at the front.
    pub fn from(&self, seq: u64, limit: usize) -> impl Iterator<Item = (u64, &Line)> {
        let skip = self.index(seq);
        let numbered = self.lines.range(skip..).enumerate().take(limit);
        numbered.map(move |(i, line)| (self.first + (skip + i) as u64, line))
    }

    /// The place of `seq`, within what is here.
    fn index(&self, seq: u64) -> usize {
        let skip = seq.saturating_sub(self.first);
        usize::try_from(skip).unwrap_or(usize::MAX).min(self.lines.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept {
        messages: 3,
        bytes: 1_000,
        age: Duration::from_secs(10),
    };

    fn push(ring: &mut Ring, time_ms: u64, bytes: usize) {
        let envelope = vec![b'x'; bytes].into();
        ring.push(Line { time_ms, envelope });
        ring.trim(time_ms, &KEPT);
    }

    fn seqs(ring: &Ring, from: u64, limit: usize) -> Vec<u64> {
        ring.from(from, limit).map(|(seq, _)| seq).collect()
    }

    #[test]
    fn the_newest_messages_stay_and_keep_their_numbers() {
        let mut ring = Ring::default();
        assert_eq!((ring.first(), ring.head(), ring.said_ms()), (1, 0, 0));
        (1..=5).for_each(|at| push(&mut ring, at, 10));
        assert_eq!((ring.first(), ring.head(), ring.said_ms()), (3, 5, 5));
        assert_eq!(seqs(&ring, 4, 9), [4, 5]);
        assert_eq!(seqs(&ring, 0, 2), [3, 4]);
        assert_eq!(seqs(&ring, 6, 9), [0; 0]);
        assert_eq!(seqs(&ring, u64::MAX, 9), [0; 0]);
    }

    #[test]
    fn age_and_bytes_bound_it_too() {
        let mut ring = Ring::default();
        (0..3).for_each(|at| push(&mut ring, at, 10));
        ring.trim(10_002, &KEPT);
        assert_eq!((ring.first(), ring.head()), (3, 3));
        ring.trim(99_000, &KEPT);
        assert_eq!((ring.first(), ring.head(), ring.bytes()), (4, 3, 0));
        push(&mut ring, 99_001, 900);
        push(&mut ring, 99_002, 900);
        assert_eq!((ring.first(), ring.head()), (5, 5), "two of 900 bytes do not fit 1,000");
    }
}
