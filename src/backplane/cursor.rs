//! Where a room on this node stands in its log, and what to do about what it hears. Pure, and the same for every engine.
//!
//! The log is the truth, and messages that arrive are only wake-ups: the successor is delivered, the old is dropped, and
//! everything else is read from the log. What the log cannot give any more is said (`reset`), never papered over.

use super::contract::{Entry, Found, Position, Range};
use super::lineage::{Lineage, Verdict};
use crate::protocol::server::ResetReason;

/// What a message that arrived is to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Delivered already.
    Old,
    /// The successor.
    Next,
    /// Something is missing before it.
    Ahead,
    /// Numbered by another epoch: perhaps by a demoted server, so only the log can tell.
    Foreign,
}

/// Judges a message by where the room stands.
#[must_use]
pub fn hear(at: &Position, entry: &Entry) -> Heard {
    if entry.position.epoch != at.epoch {
        Heard::Foreign
    } else if entry.position.seq <= at.seq {
        Heard::Old
    } else if entry.follows == at.seq {
        Heard::Next
    } else {
        Heard::Ahead
    }
}

/// What an answer of the log means for a room that stands at the position it was asked about.
#[derive(Debug, PartialEq, Eq)]
pub enum Repair {
    /// Deliver these; `again` if the log has more.
    Deliver { entries: Vec<Entry>, again: bool },
    /// Stand here from now on, tell everybody so, and ask again.
    Reset { to: Position, reason: ResetReason },
    /// The room must be made anew.
    Open,
}

/// Judges an answer to a question about `at`.
#[must_use]
pub fn repair(at: &Position, range: Range) -> Repair {
    let Range { found, head, lineage } = range;
    let here = |seq| Position {
        epoch: lineage.epoch(),
        seq,
    };
    match found {
        Found::Entries(entries) => match entries.last() {
            // Entries that do not follow would be a hole; asking again is what an engine that errs deserves.
            Some(_) if entries[0].follows != at.seq => Repair::Deliver {
                entries: Vec::new(),
                again: true,
            },
            last => Repair::Deliver {
                again: last.is_some_and(|last| last.position.seq < head),
                entries,
            },
        },
        Found::Trimmed(to) => Repair::Reset {
            to,
            reason: ResetReason::Trimmed,
        },
        Found::Forked(seq) => Repair::Reset {
            // The epoch that numbered it: the newest may be lost in its turn, and this place still be good.
            to: Position {
                epoch: lineage.epoch_of(seq),
                seq,
            },
            reason: ResetReason::Rewound,
        },
        Found::Unknown => Repair::Reset {
            to: here(head),
            reason: ResetReason::Epoch,
        },
        Found::None => Repair::Open,
    }
}

/// Where a room that was made anew stands, compared with where it stood.
#[must_use]
pub fn reopened(at: &Position, head: u64, lineage: &Lineage) -> Option<(Position, ResetReason)> {
    let here = |seq| Position {
        epoch: lineage.epoch(),
        seq,
    };
    match lineage.judge(&at.epoch, at.seq, head) {
        Verdict::Good => None,
        Verdict::Forked(seq) => {
            let epoch = lineage.epoch_of(seq);
            Some((Position { epoch, seq }, ResetReason::Rewound))
        }
        Verdict::Unknown => Some((here(head), ResetReason::Epoch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: &str, seq: u64) -> Position {
        Position {
            epoch: epoch.into(),
            seq,
        }
    }

    fn entry(epoch: &str, follows: u64, seq: u64) -> Entry {
        Entry {
            position: position(epoch, seq),
            follows,
            time_ms: 0,
            envelope: bytes::Bytes::new(),
        }
    }

    fn range(found: Found, head: u64) -> Range {
        Range {
            found,
            head,
            lineage: Lineage::parse("E1:1,E2:96").expect("readable"),
        }
    }

    #[test]
    fn only_the_successor_in_ones_own_epoch_is_delivered() {
        let at = position("E1", 7);
        for (heard, epoch, follows, seq) in [
            (Heard::Next, "E1", 7, 8),
            (Heard::Next, "E1", 7, 12),
            (Heard::Old, "E1", 6, 7),
            (Heard::Old, "E1", 1, 2),
            (Heard::Ahead, "E1", 8, 9),
            (Heard::Foreign, "E2", 7, 8),
            (Heard::Foreign, "E2", 1, 2),
        ] {
            assert_eq!(hear(&at, &entry(epoch, follows, seq)), heard, "{epoch} {follows} {seq}");
        }
    }

    #[test]
    fn what_the_log_lacks_is_said() {
        let at = position("E1", 98);
        let reset = |to, reason| Repair::Reset { to, reason };
        assert_eq!(
            repair(&at, range(Found::Forked(95), 102)),
            reset(position("E1", 95), ResetReason::Rewound)
        );
        assert_eq!(
            repair(&at, range(Found::Trimmed(position("E1", 99)), 102)),
            reset(position("E1", 99), ResetReason::Trimmed)
        );
        assert_eq!(
            repair(&at, range(Found::Unknown, 102)),
            reset(position("E2", 102), ResetReason::Epoch)
        );
        assert_eq!(repair(&at, range(Found::None, 0)), Repair::Open);
    }

    #[test]
    fn pages_are_delivered_until_the_head() {
        let at = position("E1", 98);
        let page = |entries, head| match repair(&at, range(Found::Entries(entries), head)) {
            Repair::Deliver { entries, again } => (entries.len(), again),
            other => panic!("{other:?}"),
        };
        assert_eq!(page(vec![entry("E1", 98, 99)], 100), (1, true));
        assert_eq!(page(vec![entry("E1", 98, 99), entry("E2", 99, 100)], 100), (2, false));
        assert_eq!(page(Vec::new(), 98), (0, false));
        assert_eq!(
            page(vec![entry("E1", 99, 100)], 100),
            (0, true),
            "a hole is never delivered"
        );
    }
}
