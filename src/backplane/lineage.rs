//! Who numbered which part of a room's log. Pure.
//!
//! An epoch continues the one before it at the next seq, so a position in an earlier epoch is good as far as that epoch
//! went (PROTOCOL.md section 5). What lies above was lost with the server that had numbered it.

use std::sync::Arc;

/// Epochs that are remembered; older positions are answered as unknown.
pub const EPOCHS_MAX: usize = 16;

/// Epochs with the first seq that each numbered, oldest first. Never empty once a room exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage(Vec<(Arc<str>, u64)>);

/// What a lineage says of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// The epoch went only as far as this seq.
    Forked(u64),
    /// Nobody knows the epoch.
    Unknown,
}

/// A stored lineage that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Lineage {
    /// Begins with `epoch`, whose first message is `first`.
    #[must_use]
    pub fn new(epoch: Arc<str>, first: u64) -> Self {
        Self(vec![(epoch, first)])
    }

    /// Reads `E1:1,E2:96`.
    ///
    /// # Errors
    /// [`Unreadable`]
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let epochs: Result<Vec<_>, _> = text
            .split(',')
            .map(|part| {
                let (epoch, first) = part.rsplit_once(':').ok_or(Unreadable)?;
                Ok((epoch.into(), first.parse().map_err(|_| Unreadable)?))
            })
            .collect();
        let epochs = epochs?;
        if epochs.windows(2).all(|pair| pair[0].1 <= pair[1].1) {
            Ok(Self(epochs))
        } else {
            Err(Unreadable)
        }
    }

    /// The newest epoch; empty before the room exists.
    #[must_use]
    pub fn epoch(&self) -> Arc<str> {
        self.0.last().map_or_else(|| "".into(), |(epoch, _)| Arc::clone(epoch))
    }

    /// The epoch that numbered `seq`, or the oldest known.
    #[must_use]
    pub fn epoch_of(&self, seq: u64) -> Arc<str> {
        let newer = self.0.partition_point(|(_, first)| *first <= seq);
        self.0
            .get(newer.saturating_sub(1))
            .map_or_else(|| "".into(), |(epoch, _)| Arc::clone(epoch))
    }

    /// A message was numbered by `epoch`, which is the newest if it is not known yet.
    pub fn extend(&mut self, epoch: &Arc<str>, seq: u64) {
        if self.0.iter().rev().any(|(known, _)| known == epoch) {
            return;
        }
        if self.0.len() == EPOCHS_MAX {
            self.0.remove(0);
        }
        self.0.push((Arc::clone(epoch), seq));
    }

    /// Whether `seq` of `epoch` was ever said and is still part of the log whose newest seq is `head`.
    #[must_use]
    pub fn judge(&self, epoch: &str, seq: u64, head: u64) -> Verdict {
        let Some(at) = self.0.iter().position(|(known, _)| &**known == epoch) else {
            return Verdict::Unknown;
        };
        let last = self.0.get(at + 1).map_or(head, |(_, first)| first - 1);
        if seq <= last {
            Verdict::Good
        } else {
            Verdict::Forked(last)
        }
    }
}

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (epoch, first)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{epoch}:{first}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_good_as_far_as_its_epoch_goes() {
        let lineage = Lineage::parse("E1:1,E2:96").expect("readable");
        let judge = |epoch, seq| lineage.judge(epoch, seq, 102);
        assert_eq!(judge("E1", 95), Verdict::Good);
        assert_eq!(judge("E1", 98), Verdict::Forked(95));
        assert_eq!(
            judge("E2", 95),
            Verdict::Good,
            "a reset names the new epoch below its first message"
        );
        assert_eq!(judge("E2", 102), Verdict::Good);
        assert_eq!(judge("E2", 103), Verdict::Forked(102));
        assert_eq!(judge("E3", 1), Verdict::Unknown);
        assert_eq!(&*lineage.epoch_of(95), "E1");
        assert_eq!(&*lineage.epoch_of(96), "E2");
    }

    #[test]
    fn a_message_of_an_earlier_epoch_changes_nothing() {
        let mut lineage = Lineage::parse("E1:1,E2:96").expect("readable");
        lineage.extend(&"E1".into(), 91);
        lineage.extend(&"E2".into(), 96);
        assert_eq!(lineage.to_string(), "E1:1,E2:96");
    }

    #[test]
    fn it_is_written_as_it_is_read_and_keeps_the_newest() {
        let mut lineage = Lineage::new("E0".into(), 1);
        for i in 1..20_u64 {
            lineage.extend(&format!("E{i}").into(), i * 10);
            lineage.extend(&format!("E{i}").into(), i * 10 + 1);
        }
        assert_eq!(lineage.judge("E3", 1, 500), Verdict::Unknown);
        assert_eq!(lineage.judge("E4", 49, 500), Verdict::Good);
        assert_eq!(Lineage::parse(&lineage.to_string()), Ok(lineage));
        for bad in ["", "E1", "E1:x", "E1:5,E2:3"] {
            assert_eq!(Lineage::parse(bad), Err(Unreadable), "{bad}");
        }
    }
}
