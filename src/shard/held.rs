//! Chats that wait a moment for more, in rooms whose class has a flush window. Pure.
//!
//! A room's chats wait together, and leave in their order: when the window of the first has ended, when they would fill a
//! record, or when something comes that must find them said, such as a join. Nothing else of the shard waits for them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::connection::OutboxLimits;
use crate::limits::RECORD_BYTES;
use crate::shard::members::Numbered;
use crate::websocket::encoded::Frame;

/// Chats of one room that may wait. More would save nothing worth their memory.
const FRAMES_MAX: usize = 256;

/// What waits takes at most this part of what may wait for a reader: it comes to the reader at once.
const PART_OF_OUTBOX: usize = 4;

/// Ends of windows that are over, which are put up with before the heap is built anew.
const STALE_ENDS: usize = 1_024;

/// The waiting chats of all rooms of a shard.
pub(super) struct Holding {
    rooms: Numbered<u64, Held>,
    /// Ends of windows with their rooms, soonest first. An entry is stale if the room's chats have left before.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    frames_max: usize,
    bytes_max: usize,
}

/// What waits in one room.
struct Held {
    /// Shard clock, milliseconds.
    end_ms: u64,
    frames: Vec<Frame>,
    bytes: usize,
}

impl Holding {
    pub fn new(limits: &OutboxLimits) -> Self {
        Self {
            rooms: Numbered::default(),
            ends: BinaryHeap::new(),
            frames_max: FRAMES_MAX.min(limits.frames / PART_OF_OUTBOX).max(1),
            bytes_max: RECORD_BYTES.min(limits.bytes / PART_OF_OUTBOX),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Keeps a chat until the window that begins with the first one ends; true if enough waits by now.
    pub fn hold(&mut self, room: u64, frame: Frame, window_ms: u32, now_ms: u64) -> bool {
        let held = self.rooms.entry(room).or_insert_with(|| {
            let end_ms = now_ms + u64::from(window_ms);
            self.ends.push(Reverse((end_ms, room)));
            Held {
                end_ms,
                frames: Vec::new(),
                bytes: 0,
            }
        });
        held.bytes += frame.bytes().len();
        held.frames.push(frame);
        held.frames.len() >= self.frames_max || held.bytes >= self.bytes_max
    }

    /// Lets the chats of a room go.
    pub fn release(&mut self, room: u64) -> Vec<Frame> {
        let Some(held) = self.rooms.remove(&room) else {
            return Vec::new();
        };
        if self.ends.len() > 2 * self.rooms.len() + STALE_ENDS {
            let ends = self.rooms.iter().map(|(room, held)| Reverse((held.end_ms, *room)));
            self.ends = ends.collect();
        }
        held.frames
    }

    /// The next room whose window has ended.
    pub fn pop_ended(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(Reverse((end_ms, room))) = self.ends.peek().copied() {
            if end_ms > now_ms {
                return None;
            }
            self.ends.pop();
            if self.rooms.get(&room).is_some_and(|held| held.end_ms == end_ms) {
                return Some(room);
            }
        }
        None
    }

    /// When to look again, if nothing comes before.
    pub fn next_end_ms(&self) -> Option<u64> {
        // A stale end costs a look, and is gone then.
        let end = self.ends.peek().filter(|_| !self.is_empty());
        end.map(|Reverse((end_ms, _))| *end_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_config;

    fn holding(change: impl FnOnce(&mut crate::config::Limits)) -> Holding {
        let mut limits = default_config().limits;
        change(&mut limits);
        Holding::new(&OutboxLimits::new(&limits))
    }

    fn chat(text: &str) -> Frame {
        Frame::text(|out| out.extend_from_slice(text.as_bytes()))
    }

    fn said(frames: &[Frame]) -> Vec<String> {
        let text = |frame: &Frame| String::from_utf8_lossy(frame.payload()).into_owned();
        frames.iter().map(text).collect()
    }

    #[test]
    fn a_window_begins_with_the_first_chat_and_keeps_the_order() {
        let mut holding = holding(|_| {});
        assert!(holding.is_empty() && holding.next_end_ms().is_none());
        assert!(!holding.hold(1, chat("a"), 20, 100));
        assert!(!holding.hold(2, chat("x"), 5, 101));
        assert!(!holding.hold(1, chat("b"), 20, 119));
        assert_eq!(holding.next_end_ms(), Some(106), "the earliest of all");
        assert_eq!((holding.pop_ended(105), holding.pop_ended(106)), (None, Some(2)));
        assert_eq!(said(&holding.release(2)), ["x"]);
        assert_eq!((holding.pop_ended(119), holding.pop_ended(500)), (None, Some(1)));
        assert_eq!(said(&holding.release(1)), ["a", "b"]);
        assert!(holding.is_empty() && holding.next_end_ms().is_none());
        assert!(holding.release(1).is_empty());
    }

    #[test]
    fn who_left_early_waits_for_a_window_of_its_own() {
        let mut holding = holding(|_| {});
        holding.hold(1, chat("a"), 20, 100);
        assert_eq!(said(&holding.release(1)), ["a"]);
        holding.hold(1, chat("b"), 20, 110);
        assert_eq!(
            holding.pop_ended(129),
            None,
            "the end of the first window means nothing any more"
        );
        assert_eq!(holding.pop_ended(130), Some(1));
    }

    #[test]
    fn a_full_record_or_a_small_outbox_ends_the_wait() {
        let mut full = holding(|_| {});
        let piece = "p".repeat(1_000);
        let held = (1..=FRAMES_MAX).find(|_| full.hold(1, chat(&piece), 20, 0));
        assert_eq!(held, Some(RECORD_BYTES.div_ceil(1_004)));
        let mut many = holding(|_| {});
        assert_eq!(
            (1..=2 * FRAMES_MAX).find(|_| many.hold(1, chat("x"), 20, 0)),
            Some(FRAMES_MAX)
        );
        let mut small = holding(|limits| limits.outbox_frames = 16);
        assert_eq!((1..=FRAMES_MAX).find(|_| small.hold(1, chat("x"), 20, 0)), Some(4));
    }

    #[test]
    fn stale_ends_do_not_pile_up() {
        let mut holding = holding(|_| {});
        for round in 0..20_000 {
            holding.hold(round % 3, chat("x"), 1_000, 0);
            holding.release(round % 3);
            assert!(holding.ends.len() <= STALE_ENDS + 4);
        }
    }
}
