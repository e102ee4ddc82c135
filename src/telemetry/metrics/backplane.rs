//! Rooms across nodes: what is heard of the backplane, who is present, who is revoked. All handles are registered at
//! the start; nothing is looked up by name, and a word is compared with at most ten.

use super::handles::{Counters, Registrar, Words};
use super::labels::{
    AuditResult, CALL_RESULTS, CallKind, Label, Link, PermitResult, PresenceChange, PresenceResult, REFUSED_REASONS,
    Reason, RenewalResult, RepairResult, SubjectKind, Wakeup,
};
use super::names;

/// `conclave_backplane_*`.
pub struct Backplane {
    up: metrics::Gauge,
    links_up: Vec<metrics::Gauge>,
    /// By link.
    rebuilds: Vec<Counters<Reason>>,
    lag: metrics::Histogram,
    peer_age: metrics::Gauge,
    /// By call.
    calls: Vec<Words>,
    call_durations: Vec<metrics::Histogram>,
    queue_messages: metrics::Gauge,
    queue_bytes: metrics::Gauge,
    refused: Words,
    repairs: Counters<RepairResult>,
    wakeups: Counters<Wakeup>,
    audits: Counters<AuditResult>,
    audit_duration: metrics::Histogram,
    attached_rooms: metrics::Gauge,
    permits: Counters<PermitResult>,
    unready: metrics::Gauge,
}

impl Backplane {
    /// `kind`: `memory`, `redis`, `nats`.
    pub(super) fn register(new: &Registrar<'_>, kind: &'static str) -> Self {
        let each_link =
            |register: &dyn Fn(&str) -> Counters<Reason>| Link::ALL.iter().map(|l| register(l.word())).collect();
        let backplane = Self {
            up: new.gauge(&names::BACKPLANE_UP, &[kind]),
            links_up: new.gauges::<Link>(&names::BACKPLANE_LINK_UP),
            rebuilds: each_link(&|link| new.counters_of(&names::BACKPLANE_LINK_REBUILDS, link)),
            lag: new.histogram(&names::BACKPLANE_LAG, &[]),
            peer_age: new.gauge(&names::BACKPLANE_PEER_AGE, &[]),
            calls: CallKind::ALL
                .iter()
                .map(|call| new.words_of(&names::BACKPLANE_CALLS, call.word(), CALL_RESULTS))
                .collect(),
            call_durations: CallKind::ALL
                .iter()
                .map(|call| new.histogram(&names::BACKPLANE_CALL_DURATION, &[call.word()]))
                .collect(),
            queue_messages: new.gauge(&names::BACKPLANE_QUEUE_MESSAGES, &[]),
            queue_bytes: new.gauge(&names::BACKPLANE_QUEUE_BYTES, &[]),
            refused: new.words(&names::BACKPLANE_REFUSED, REFUSED_REASONS),
            repairs: new.counters(&names::BACKPLANE_REPAIRS),
            wakeups: new.counters(&names::BACKPLANE_WAKEUPS),
            audits: new.counters(&names::BACKPLANE_AUDITS),
            audit_duration: new.histogram(&names::BACKPLANE_AUDIT_DURATION, &[]),
            attached_rooms: new.gauge(&names::BACKPLANE_ATTACHED_ROOMS, &[]),
            permits: new.counters(&names::BACKPLANE_PERMITS),
            unready: new.gauge(&names::BACKPLANE_UNREADY, &[]),
        };
        // There is nothing that memory could be cut off from.
        backplane.up(kind == "memory");
        backplane
    }

    /// The backplane as a whole can be reached, or not.
    pub fn up(&self, up: bool) {
        set(&self.up, up);
    }

    /// All links of a sort can be used, or one cannot.
    pub fn link_up(&self, link: Link, up: bool) {
        set(&self.links_up[link.index()], up);
    }

    /// A link was made anew.
    pub fn link_rebuilt(&self, link: Link, reason: Reason) {
        self.rebuilds[link.index()].inc(reason);
    }

    /// A canary came back so long after it was published.
    pub fn lag(&self, seconds: f64) {
        self.lag.record(seconds);
    }

    /// The oldest of the newest canaries of each live peer is so old.
    pub fn peer_age(&self, seconds: f64) {
        self.peer_age.set(seconds);
    }

    /// A call came to `result` (`ok`, `unknown`, or a word of `Refusal`) after so long.
    pub fn call(&self, call: CallKind, result: &'static str, seconds: f64) {
        self.calls[call.index()].inc(result);
        self.call_durations[call.index()].record(seconds);
    }

    /// Chats that wait for the backplane now, of all rooms.
    pub fn queue(&self, messages: usize, bytes: usize) {
        self.queue_messages.set(messages as f64);
        self.queue_bytes.set(bytes as f64);
    }

    /// A chat was answered `unavailable`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.inc(reason);
    }

    /// A room asked the log what it missed.
    pub fn repair(&self, result: RepairResult) {
        self.repairs.inc(result);
    }

    /// A message of an attached room was heard of.
    pub fn wakeup(&self, result: Wakeup) {
        self.wakeups.inc(result);
    }

    /// The head of one room was compared.
    pub fn audit(&self, result: AuditResult) {
        self.audits.inc(result);
    }

    /// A round over all rooms took so long.
    pub fn audit_seconds(&self, seconds: f64) {
        self.audit_duration.record(seconds);
    }

    /// Rooms that this node is subscribed to now.
    pub fn attached_rooms(&self, rooms: usize) {
        self.attached_rooms.set(rooms as f64);
    }

    /// The backplane was asked whether this node may fail its readiness.
    pub fn permit(&self, granted: bool) {
        let result = if granted {
            PermitResult::Granted
        } else {
            PermitResult::Denied
        };
        self.permits.inc(result);
    }

    /// Readiness fails because of the backplane, or no longer.
    pub fn unready(&self, unready: bool) {
        set(&self.unready, unready);
    }
}

/// `conclave_presence_*`.
pub struct Presence {
    changes: Counters<PresenceChange>,
    events: Counters<PresenceResult>,
    renewals: Counters<RenewalResult>,
    reaped: metrics::Counter,
    incarnations: metrics::Counter,
    queue: metrics::Gauge,
}

impl Presence {
    pub(super) fn register(new: &Registrar<'_>) -> Self {
        Self {
            changes: new.counters(&names::PRESENCE_CHANGES),
            events: new.counters(&names::PRESENCE_EVENTS),
            renewals: new.counters(&names::PRESENCE_RENEWALS),
            reaped: new.counter(&names::PRESENCE_REAPED, &[]),
            incarnations: new.counter(&names::PRESENCE_INCARNATIONS, &[]),
            queue: new.gauge(&names::PRESENCE_QUEUE, &[]),
        }
    }

    /// This node told the backplane of a user's first connection here, or the end of the last.
    pub fn change(&self, enters: bool) {
        let change = if enters {
            PresenceChange::Enter
        } else {
            PresenceChange::Leave
        };
        self.changes.inc(change);
    }

    /// The backplane told of a user who came or went.
    pub fn event(&self, result: PresenceResult) {
        self.events.inc(result);
    }

    /// The lease was renewed, or not.
    pub fn renewal(&self, result: RenewalResult) {
        self.renewals.inc(result);
    }

    /// This node moved so many users of a dead one out.
    pub fn reaped(&self, users: u64) {
        self.reaped.increment(users);
    }

    /// This node took a new incarnation.
    pub fn incarnation(&self) {
        self.incarnations.increment(1);
    }

    /// Changes that wait for the backplane now.
    pub fn queue(&self, changes: usize) {
        self.queue.set(changes as f64);
    }
}

/// `conclave_revocation_*`, and kicks.
pub struct Revocation {
    entries: metrics::Gauge,
    effect: metrics::Histogram,
    staleness: metrics::Gauge,
    closed: Counters<SubjectKind>,
    reloads: metrics::Counter,
    kicks: metrics::Counter,
}

impl Revocation {
    pub(super) fn register(new: &Registrar<'_>) -> Self {
        Self {
            entries: new.gauge(&names::REVOCATION_ENTRIES, &[]),
            effect: new.histogram(&names::REVOCATION_EFFECT, &[]),
            staleness: new.gauge(&names::REVOCATION_STALENESS, &[]),
            closed: new.counters(&names::REVOCATION_CLOSED),
            reloads: new.counter(&names::REVOCATION_RELOADS, &[]),
            kicks: new.counter(&names::KICKS, &[]),
        }
    }

    /// Revocations that this node knows now.
    pub fn entries(&self, entries: usize) {
        self.entries.set(entries as f64);
    }

    /// The last connection was closed so long after the revocation was made.
    pub fn effect(&self, seconds: f64) {
        self.effect.record(seconds);
    }

    /// So long ago this node last knew that it had missed nothing.
    pub fn staleness(&self, seconds: f64) {
        self.staleness.set(seconds);
    }

    /// So many connections were closed for a revocation or a kick.
    pub fn closed(&self, kind: SubjectKind, connections: u64) {
        self.closed.of(kind).increment(connections);
    }

    /// All revocations were loaded again.
    pub fn reload(&self) {
        self.reloads.increment(1);
    }

    /// A kick was carried out here, whether or not anybody was.
    pub fn kick(&self) {
        self.kicks.increment(1);
    }
}

fn set(gauge: &metrics::Gauge, flag: bool) {
    gauge.set(f64::from(u8::from(flag)));
}
