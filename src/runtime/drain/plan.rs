//! When a node's clients are told to go, and when they come back: pure arithmetic, the same for a drain and for
//! `drain --dry-run`.
//!
//! Closes are spread evenly over most of the drain time (less if there are only a few clients). Clients that the other nodes have room for come back to
//! those as they are let go. Everybody else can only come back here, so not before this node has ended and its
//! successor had time to begin. Whatever the clock says, nobody is sent back faster than whoever takes them can
//! take them: then the last ones come after the drain time, and the plan says so.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Closes are spread over this share of the drain time; the rest is for the last ones to leave.
const CLOSING_SHARE: f64 = 0.8;

/// Of the handshakes per second that a node takes, so many are for those who come back. The rest is for everybody
/// else, and for balancers that do not share evenly.
const RETURNS_SHARE: f64 = 0.5;

/// Nobody is told to come back sooner: the close is still on its way.
const SLOT_MIN_SECONDS: f64 = 0.1;

/// Slots of neighbours overlap by so much, so that clients which were told together do not return together.
const JITTER_SECONDS_MAX: f64 = 1.0;

/// Closing so many a second troubles nobody: a few clients do not take the whole drain time.
const CLOSES_PER_SECOND_MIN: f64 = 20.0;

/// From this node's last close to its successor's first accept: the rest of the drain time, within these bounds.
const RESTART_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=5.0;

/// What a plan is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Sockets that have to go.
    pub clients: u64,
    /// `drain.grace`
    pub grace: Duration,
    /// `drain.time`
    pub time: Duration,
    /// Handshakes per second that this node, and so its successor, takes.
    pub accepts_per_second: u32,
    /// The nodes that take clients over; none without a shared backplane.
    pub others: Vec<Room>,
}

/// What one other node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Handshakes per second.
    pub accepts_per_second: u32,
    /// Connections below its limit.
    pub free: u64,
}

/// What is going to happen, in seconds from the moment at which the node is asked to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Sockets that are told when to come back, and closed.
    pub clients: u64,
    /// Closes begin.
    pub grace_seconds: f64,
    /// So long from the first close to the last one.
    pub closing_seconds: f64,
    /// The last client has been told, and the node ends if all of them answer.
    pub end_seconds: f64,
    /// Whoever is left is cut: the node ends then at the latest.
    pub deadline_seconds: f64,
    /// The last client is back.
    pub last_return_seconds: f64,
    /// Clients that come back each second, at most.
    pub returns_per_second: f64,
    /// Nodes that take clients over.
    pub others: usize,
    /// Clients that these have room for; the rest comes back to this node's successor.
    pub moving: u64,
    /// Everybody has a place elsewhere (or, with no other node, comes back here), and nobody has to wait longer
    /// than the drain time because of the rate.
    pub fits: bool,
}

/// The slots of one drain. Times are seconds from the first close.
#[derive(Debug, Clone)]
pub struct Slots {
    clients: f64,
    closing: f64,
    /// The first so many go to other nodes.
    moving: f64,
    /// Returns per second to other nodes.
    away: f64,
    /// Returns per second to this node's successor, and from when on.
    home: f64,
    home_from: f64,
    jitter: f64,
}

impl Slots {
    #[must_use]
    pub fn new(outlook: &Outlook) -> Self {
        let time = outlook.time.as_secs_f64();
        let clients = outlook.clients as f64;
        let closing = (time * CLOSING_SHARE).min(clients / CLOSES_PER_SECOND_MIN);
        let restart = (time - time * CLOSING_SHARE).clamp(*RESTART_SECONDS.start(), *RESTART_SECONDS.end());
        let open = || {
            outlook
                .others
                .iter()
                .filter(|room| room.free > 0 && room.accepts_per_second > 0)
        };
        let room: u64 = open().map(|room| room.free).fold(0, u64::saturating_add);
        // A node that has little room takes few, however fast it could.
        let takes = |room: &Room| {
            let rate = f64::from(room.accepts_per_second) * RETURNS_SHARE;
            if closing > 0.0 {
                rate.min(room.free as f64 / closing)
            } else {
                rate
            }
        };
        let others: f64 = open().map(takes).sum();
        // As they are let go, unless that is more than they can take.
        let let_go = if closing > 0.0 {
            clients / closing
        } else {
            f64::INFINITY
        };
        Self {
            clients,
            closing,
            moving: outlook.clients.min(room) as f64,
            away: others.min(let_go),
            home: f64::from(outlook.accepts_per_second.max(1)) * RETURNS_SHARE,
            home_from: closing + restart,
            jitter: (closing / 8.0).min(JITTER_SECONDS_MAX),
        }
    }

    /// How many clients must have been told after so many seconds.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of clients"
    )]
    pub fn due(&self, elapsed: f64) -> usize {
        if elapsed >= self.closing {
            return self.clients as usize;
        }
        // The first one at once, the last one at the end.
        (self.clients * elapsed / self.closing).floor() as usize + 1
    }

    /// When the client that is told as number `index` (from 0) comes back; both dice fall in `0.0..1.0`.
    #[must_use]
    pub fn returns_at(&self, index: usize, place: f64, jitter: f64) -> f64 {
        let index = index as f64;
        let at = if index < self.moving {
            (index + place) / self.away
        } else {
            self.home_from + (index - self.moving + place) / self.home
        };
        SLOT_MIN_SECONDS + at + jitter * self.jitter
    }

    /// `reconnect_after_ms` of that client if it is told now.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and a float saturates"
    )]
    pub fn reconnect_after_ms(&self, index: usize, elapsed: f64, place: f64, jitter: f64) -> u64 {
        let seconds = self.returns_at(index, place, jitter) - elapsed;
        (seconds.max(SLOT_MIN_SECONDS) * 1_000.0) as u64
    }
}

/// What is going to happen.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of clients"
)]
pub fn plan(outlook: &Outlook) -> Plan {
    let slots = Slots::new(outlook);
    let (moving, staying) = (slots.moving, slots.clients - slots.moving);
    let time = outlook.time.as_secs_f64();
    let grace = outlook.grace.as_secs_f64();
    let last = |index: f64| slots.returns_at(index as usize, 1.0, 1.0);
    let last_away = if moving > 0.0 { last(moving - 1.0) } else { 0.0 };
    let last_home = if staying > 0.0 { last(slots.clients - 1.0) } else { 0.0 };
    let others = outlook.others.len();
    let is_quick = (staying / slots.home).max(if moving > 0.0 { moving / slots.away } else { 0.0 }) <= time.max(1.0);
    Plan {
        clients: outlook.clients,
        grace_seconds: grace,
        closing_seconds: slots.closing,
        end_seconds: grace + slots.closing,
        deadline_seconds: grace + time,
        last_return_seconds: grace + last_away.max(last_home),
        returns_per_second: rate(moving, slots.away).max(rate(staying, slots.home)),
        others,
        moving: moving as u64,
        fits: is_quick && (others == 0 || staying == 0.0),
    }
}

/// A handful of clients makes no rate.
fn rate(clients: f64, per_second: f64) -> f64 {
    if clients > 0.0 { per_second.min(clients) } else { 0.0 }
}
