//! Whether the node has room for one more client, once it is known who asks: those who return go first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::Limits;
use crate::telemetry::metrics::{AdmissionRefusal, Limit, Metrics};

/// Looks in a row that found the node behind after which newcomers are turned away: a burst is no overload.
const BEHIND_NEWCOMERS: u32 = 5;
/// The same for those who return.
const BEHIND_RETURNING: u32 = 20;

/// Who is turned away comes back after this at the earliest.
const RETURN_MIN: Duration = Duration::from_millis(500);
/// Nobody is sent away for longer, however many were before.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections now, this one included.
    pub held: usize,
    /// `limits.connections`
    pub held_max: usize,
    /// [`super::Admission::accepts_per_second`]
    pub accepts_per_second: u32,
}

/// Marks above which clients are turned away.
pub struct Overload {
    /// `limits.returning_share`
    returning_share: f64,
    /// Sockets may be opened so far ahead of the rate at which handshakes are.
    patience: Duration,
    /// `limits.turn_aways`
    telling_max: usize,
    telling: Arc<AtomicUsize>,
    /// Looks in a row that found the node behind.
    behind: AtomicU32,
    clocks: Mutex<Clocks>,
    metrics: Arc<Metrics>,
}

/// Virtual clocks: each client moves one on by the time that the node needs for it.
struct Clocks {
    /// When the sockets opened so far are paid for.
    opened: Instant,
    /// When the last of those turned away was asked to return.
    returns: Instant,
}

impl Overload {
    #[must_use]
    pub fn new(limits: &Limits, patience: Duration, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        Self {
            returning_share: limits.returning_share,
            patience,
            telling_max: match limits.turn_aways {
                0 => usize::MAX,
                max => max,
            },
            telling: Arc::default(),
            behind: AtomicU32::new(0),
            clocks: Mutex::new(Clocks {
                opened: now,
                returns: now,
            }),
            metrics,
        }
    }

    /// Notes whether the node is behind at this look.
    pub fn look(&self, is_behind: bool) {
        let looks = if is_behind {
            self.behind.load(Relaxed).saturating_add(1)
        } else {
            0
        };
        self.behind.store(looks, Relaxed);
    }

    /// Whether one more socket may be opened; if so, it counts.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn admit(&self, load: Load, is_returning: bool) -> Result<(), AdmissionRefusal> {
        self.room(load, is_returning)?;
        let now = Instant::now();
        let mut clocks = self.clocks.lock();
        if clocks.opened.saturating_duration_since(now) > self.ahead_max(is_returning) {
            return Err(AdmissionRefusal::Rate);
        }
        clocks.opened = clocks.opened.max(now) + per_client(load.accepts_per_second);
        Ok(())
    }

    /// Whether there is room for a plain request, which never goes before a socket.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn serve(&self, load: Load) -> Result<(), AdmissionRefusal> {
        self.room(load, false)?;
        let ahead = self.clocks.lock().opened.saturating_duration_since(Instant::now());
        if ahead > self.ahead_max(false) {
            return Err(AdmissionRefusal::Rate);
        }
        Ok(())
    }

    /// When a client that is turned away now should return: each has a moment of its own, at half the rate at which the
    /// node begins handshakes.
    pub fn return_after(&self, accepts_per_second: u32) -> Duration {
        let now = Instant::now();
        let mut clocks = self.clocks.lock();
        let next = clocks.returns.max(now + RETURN_MIN) + 2 * per_client(accepts_per_second);
        if next > now + RETURN_MAX {
            // So many that their own moments would be minutes away: anywhere in the later half.
            return RETURN_MAX / 2 + random_below(RETURN_MAX / 2);
        }
        clocks.returns = next;
        next - now
    }

    /// A place among those who are being told that they may not stay; `None` when there are too many of them.
    pub fn tell(&self) -> Option<Telling> {
        let telling = Telling(Arc::clone(&self.telling));
        if self.telling.fetch_add(1, Relaxed) < self.telling_max {
            return Some(telling);
        }
        self.metrics.limit_hit(Limit::TurnAways);
        None
    }

    fn room(&self, load: Load, is_returning: bool) -> Result<(), AdmissionRefusal> {
        let kept = if is_returning { 0 } else { self.kept(load.held_max) };
        if load.held > load.held_max.saturating_sub(kept) {
            return Err(AdmissionRefusal::Connections);
        }
        let looks_max = if is_returning {
            BEHIND_RETURNING
        } else {
            BEHIND_NEWCOMERS
        };
        if self.behind.load(Relaxed) >= looks_max {
            return Err(AdmissionRefusal::Behind);
        }
        Ok(())
    }

    /// Connections that only those get who return.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    fn kept(&self, held_max: usize) -> usize {
        (held_max as f64 * self.returning_share) as usize
    }

    fn ahead_max(&self, is_returning: bool) -> Duration {
        if is_returning { self.patience } else { self.patience / 2 }
    }
}

/// A client that is being told. Its place is free again when this is dropped.
#[derive(Debug)]
pub struct Telling(Arc<AtomicUsize>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn per_client(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

fn random_below(bound: Duration) -> Duration {
    let bits = uuid::Uuid::new_v4().as_u128();
    Duration::from_nanos(u64::try_from(bits % bound.as_nanos().max(1)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_config;
    use crate::net::admission::tests::metrics;

    fn overload(change: impl FnOnce(&mut Limits)) -> Overload {
        let mut limits = default_config().limits;
        change(&mut limits);
        Overload::new(&limits, Duration::from_secs(2), metrics())
    }

    fn load(held: usize) -> Load {
        Load {
            held,
            held_max: 100,
            accepts_per_second: 1_000,
        }
    }

    #[test]
    fn the_last_connections_are_for_those_who_return() {
        let overload = overload(|limits| limits.returning_share = 0.1);
        assert_eq!(overload.admit(load(90), false), Ok(()));
        assert_eq!(overload.admit(load(91), false), Err(AdmissionRefusal::Connections));
        assert_eq!(overload.serve(load(91)), Err(AdmissionRefusal::Connections));
        assert_eq!(overload.admit(load(100), true), Ok(()));
        assert_eq!(overload.admit(load(101), true), Err(AdmissionRefusal::Connections));
    }

    #[test]
    fn a_node_that_stays_behind_turns_newcomers_away_first() {
        let overload = overload(|_| {});
        for look in 1..=BEHIND_RETURNING {
            overload.look(true);
            let newcomer = overload.admit(load(1), false);
            assert_eq!(newcomer.is_err(), look >= BEHIND_NEWCOMERS, "look {look}");
            assert_eq!(
                overload.admit(load(1), true).is_err(),
                look >= BEHIND_RETURNING,
                "look {look}"
            );
        }
        overload.look(false);
        assert_eq!(overload.admit(load(1), false), Ok(()));
    }

    #[test]
    fn sockets_are_opened_no_faster_than_handshakes_are() {
        let overload = overload(|_| {});
        let slow = Load {
            accepts_per_second: 10,
            ..load(1)
        };
        let admitted = |is_returning| {
            std::iter::repeat_with(|| overload.admit(slow, is_returning))
                .take_while(Result::is_ok)
                .count()
        };
        // A second's worth, and as much again for those who return.
        assert!((10..=12).contains(&admitted(false)));
        assert_eq!(overload.admit(slow, false), Err(AdmissionRefusal::Rate));
        assert!((9..=12).contains(&admitted(true)));
    }

    #[test]
    fn returns_are_spread() {
        let overload = overload(|_| {});
        let returns: Vec<_> = (0..1_000).map(|_| overload.return_after(1_000)).collect();
        assert!(returns[0] >= RETURN_MIN && returns[0] < RETURN_MIN * 2);
        assert!(
            returns[999] > Duration::from_secs(2),
            "1,000 at 500 per second: {:?}",
            returns[999]
        );
        for _ in 0..1_000 {
            let after = overload.return_after(1);
            assert!(after <= RETURN_MAX, "{after:?}");
        }
    }

    #[test]
    fn so_many_are_told_at_once_and_no_more() {
        let overload = overload(|limits| limits.turn_aways = 2);
        let first = overload.tell();
        let second = overload.tell();
        assert!(first.is_some() && second.is_some() && overload.tell().is_none());
        drop(first);
        assert!(overload.tell().is_some());
    }
}
