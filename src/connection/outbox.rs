//! Frames that wait for one connection. Pure.

use std::collections::VecDeque;

use crate::websocket::encoded::Frame;

/// Places that an empty outbox keeps; a longer one is given back.
const FRAMES_KEPT: usize = 16;

#[derive(Debug)]
struct Queued {
    frame: Frame,
    /// Shard clock, milliseconds.
    since_ms: u64,
}

/// A queue of shared frames, of which the first may be half gone. No allocation until it is first used.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Queued>,
    /// Bytes of the first frame that have been taken.
    head_taken: usize,
    /// Bytes still to take.
    bytes: usize,
}

impl Outbox {
    pub fn push(&mut self, frame: Frame, now_ms: u64) {
        self.bytes += frame.bytes().len();
        self.frames.push_back(Queued {
            frame,
            since_ms: now_ms,
        });
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the first frame waits.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.frames.front().map(|queued| queued.since_ms)
    }

    /// Moves up to `max` bytes to the end of `piece`; a frame may be cut.
    pub fn take(&mut self, max: usize, piece: &mut Vec<u8>) {
        let mut room = max;
        while room > 0 {
            let Some(queued) = self.frames.front() else { break };
            let rest = &queued.frame.bytes()[self.head_taken..];
            let taken = rest.len().min(room);
            piece.extend_from_slice(&rest[..taken]);
            room -= taken;
            self.bytes -= taken;
            if taken < rest.len() {
                self.head_taken += taken;
                break;
            }
            self.frames.pop_front();
            self.head_taken = 0;
        }
        if self.frames.is_empty() && self.frames.capacity() > FRAMES_KEPT {
            self.frames = VecDeque::new();
        }
    }

    /// Drops every frame that has not been begun, so that a close frame may follow the one that has.
    pub fn drop_unbegun(&mut self) {
        self.frames.truncate(usize::from(self.head_taken > 0));
        self.bytes = self
            .frames
            .front()
            .map_or(0, |queued| queued.frame.bytes().len() - self.head_taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::frame::Opcode;

    fn frame(payload: &[u8]) -> Frame {
        Frame::of(Opcode::Text, payload)
    }

    #[test]
    fn frames_leave_in_order_and_may_be_cut_anywhere() {
        let whole: Vec<u8> = [frame(b"one"), frame(b""), frame(b"three")]
            .iter()
            .flat_map(|f| f.bytes().to_vec())
            .collect();
        for max in 1..=whole.len() {
            let mut outbox = Outbox::default();
            for payload in [&b"one"[..], b"", b"three"] {
                outbox.push(frame(payload), 1);
            }
            let mut out = Vec::new();
            while !outbox.is_empty() {
                outbox.take(max, &mut out);
                assert_eq!(outbox.bytes(), whole.len() - out.len());
            }
            assert_eq!(out, whole);
        }
    }

    #[test]
    fn what_was_begun_stays_when_the_rest_is_dropped() {
        let mut outbox = Outbox::default();
        outbox.push(frame(b"begun"), 1);
        outbox.push(frame(b"not"), 2);
        let mut out = Vec::new();
        outbox.take(3, &mut out);
        outbox.drop_unbegun();
        assert_eq!((outbox.frames(), outbox.bytes()), (1, 4));
        outbox.take(100, &mut out);
        assert_eq!(out, frame(b"begun").bytes());
        outbox.push(frame(b"x"), 3);
        outbox.drop_unbegun();
        assert!(outbox.is_empty());
    }
}
