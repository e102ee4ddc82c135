//! Frames that wait for one connection. Pure.

use std::collections::VecDeque;

use crate::websocket::encoded::Frame;

#[derive(Debug)]
struct Queued {
    frame: Frame,
    /// Shard clock, milliseconds.
    since_ms: u64,
}

/// A queue of shared frames, of which the first may be half gone.
///
/// The first has a place of its own: most outboxes hold at most one frame, and then there is nothing to
/// allocate. The rest is freed, not cleared, when it is empty.
#[derive(Debug, Default)]
pub struct Outbox {
    first: Option<Queued>,
    #[expect(
        clippy::box_collection,
        reason = "8 bytes for the many that have none, where 32 would be kept for ever"
    )]
    rest: Option<Box<VecDeque<Queued>>>,
    /// Bytes of the first frame that have been taken. No frame has 4 GiB: the longest message has a quarter of that.
    first_taken: u32,
    /// Bytes still to take: `limits.outbox_bytes`, at most 1 GiB, and a replay or a close beyond it.
    bytes: u32,
}

impl Outbox {
    pub fn push(&mut self, frame: Frame, now_ms: u64) {
        self.bytes = self.bytes.saturating_add(narrow(frame.bytes().len()));
        let queued = Queued {
            frame,
            since_ms: now_ms,
        };
        if self.first.is_none() {
            self.first = Some(queued);
        } else {
            self.rest.get_or_insert_default().push_back(queued);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[must_use]
    pub fn frames(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Since when the first frame waits.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.first.as_ref().map(|queued| queued.since_ms)
    }

    /// Moves up to `max` bytes to the end of `piece`; a frame may be cut. `whole` is told of each frame whose last
    /// byte was moved.
    pub fn take(&mut self, max: usize, piece: &mut Vec<u8>, mut whole: impl FnMut(&Frame)) {
        let mut room = max;
        while room > 0
            && let Some(queued) = &self.first
        {
            let left = &queued.frame.bytes()[self.first_taken as usize..];
            let taken = left.len().min(room);
            piece.extend_from_slice(&left[..taken]);
            room -= taken;
            self.bytes = self.bytes.saturating_sub(narrow(taken));
            if taken < left.len() {
                self.first_taken += narrow(taken);
                return;
            }
            whole(&queued.frame);
            self.first_taken = 0;
            self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        }
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
    }

    /// Drops every frame that has not been begun, so that a close frame may follow the one that has. Returns how
    /// many.
    pub fn drop_unbegun(&mut self) -> usize {
        let before = self.frames();
        self.rest = None;
        if self.first_taken == 0 {
            self.first = None;
        }
        let left = self.first.as_ref();
        self.bytes = left.map_or(0, |queued| narrow(queued.frame.bytes().len()) - self.first_taken);
        before - self.frames()
    }
}

/// There is one outbox per connection, and nothing in it comes near 4 GiB.
fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
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
        let payloads = [&b"one"[..], b"", b"three"];
        let bytes: Vec<u8> = payloads
            .iter()
            .flat_map(|payload| frame(payload).bytes().to_vec())
            .collect();
        for max in 1..=bytes.len() {
            let mut outbox = Outbox::default();
            for payload in payloads {
                outbox.push(frame(payload), 1);
            }
            let (mut out, mut whole) = (Vec::new(), 0);
            while !outbox.is_empty() {
                outbox.take(max, &mut out, |_| whole += 1);
                assert_eq!(outbox.bytes(), bytes.len() - out.len());
            }
            assert_eq!(out, bytes);
            assert_eq!(whole, payloads.len());
            assert!(outbox.rest.is_none(), "nothing is kept at rest");
        }
    }

    #[test]
    fn what_was_begun_stays_when_the_rest_is_dropped() {
        let mut outbox = Outbox::default();
        outbox.push(frame(b"begun"), 1);
        outbox.push(frame(b"not"), 2);
        let mut out = Vec::new();
        outbox.take(3, &mut out, |_| panic!("it is cut"));
        assert_eq!(outbox.drop_unbegun(), 1);
        assert_eq!((outbox.frames(), outbox.bytes()), (1, 4));
        outbox.take(100, &mut out, |_| {});
        assert_eq!(out, frame(b"begun").bytes());
        outbox.push(frame(b"x"), 3);
        assert_eq!(outbox.drop_unbegun(), 1);
        assert!(outbox.is_empty());
    }
}
