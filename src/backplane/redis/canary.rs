//! A message a second through the real script in a hidden room, heard by all nodes: what says that a link is alive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::super::contract::Sink;
use super::telemetry::Telemetry;

/// Nodes at one canary each per second; with more of them each sends less often.
const NODES_PER_SECOND: u32 = 20;

/// Canaries that a link may miss before it is made anew.
const MISSED_MAX: u32 = 3;

/// Canaries missed, over all links, before this node asks to be left alone.
const DEAF_MAX: u32 = 5;

/// Canaries heard before this node takes new connections again.
const HEARD_AGAIN: u32 = 3;

/// How long a permit to be unready lasts. It is renewed.
pub(super) const PERMIT_LIFE: Duration = Duration::from_secs(10);

/// A peer not heard for so long has gone.
const PEER_LIFE: Duration = Duration::from_secs(60);

/// Canaries of a peer before its silence means anything: a command such as `conclave kick` is there for one or two.
const PEER_HEARD_MIN: u32 = 3;

/// Peers that are remembered.
const PEERS_MAX: usize = 4_096;

/// Canaries of our own under way.
const SENT_MAX: usize = 16;

/// Whether this node asks balancers to go elsewhere: while any of its shards is deaf.
pub(super) struct Readiness {
    deaf: AtomicUsize,
    sink: Arc<dyn Sink>,
}

impl Readiness {
    pub(super) fn new(sink: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Self {
            deaf: AtomicUsize::new(0),
            sink,
        })
    }

    fn deafer(&self) {
        if self.deaf.fetch_add(1, Ordering::AcqRel) == 0 {
            self.sink.unready(true);
        }
    }

    fn better(&self) {
        if self.deaf.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.sink.unready(false);
        }
    }
}

/// What one shard's canary has heard and missed.
#[derive(Debug, Default)]
pub(super) struct Canary(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// This node's name in its canaries.
    me: String,
    next: u64,
    sent: VecDeque<(u64, Instant)>,
    peers: HashMap<String, Peer>,
    /// Since when commands are answered on this link but no own canary comes.
    link_deaf: Option<Instant>,
    /// The same over all links.
    deaf: Option<Instant>,
    asked: Option<Instant>,
    unready: bool,
    heard_since_unready: u32,
}

#[derive(Debug)]
struct Peer {
    heard: Instant,
    times: u32,
}

impl Canary {
    /// A new link. What this node missed on earlier ones still counts for its readiness.
    pub(super) fn begin(&self, me: &str) {
        let mut state = self.0.lock();
        me.clone_into(&mut state.me);
        state.sent.clear();
        state.link_deaf = None;
    }

    /// The envelope of the next one.
    pub(super) fn next(&self, now: Instant) -> String {
        let mut state = self.0.lock();
        state.next += 1;
        let number = state.next;
        if state.sent.len() == SENT_MAX {
            state.sent.pop_front();
        }
        state.sent.push_back((number, now));
        format!("{} {number}", state.me)
    }

    /// It is about to be stored.
    pub(super) fn sending(&self, now: Instant) {
        let mut state = self.0.lock();
        state.link_deaf = state.link_deaf.or(Some(now));
        state.deaf = state.deaf.or(Some(now));
    }

    /// It was not stored. While commands fail everybody is in the same state, and nobody is to blame.
    pub(super) fn failed(&self, readiness: &Readiness) {
        let mut state = self.0.lock();
        state.link_deaf = None;
        state.deaf = None;
        if std::mem::take(&mut state.unready) {
            readiness.better();
        }
    }

    /// How long until the next one.
    pub(super) fn interval(&self) -> Duration {
        interval(&self.0.lock())
    }

    /// One came.
    pub(super) fn heard(&self, envelope: &[u8], telemetry: &Telemetry, readiness: &Readiness) {
        let now = Instant::now();
        let mut state = self.0.lock();
        let Some((who, number)) = std::str::from_utf8(envelope).ok().and_then(|text| text.split_once(' ')) else {
            return;
        };
        if who != state.me {
            let is_room = state.peers.len() < PEERS_MAX;
            match state.peers.get_mut(who) {
                Some(peer) => (peer.heard, peer.times) = (now, peer.times.saturating_add(1)),
                None if is_room => drop(state.peers.insert(who.to_owned(), Peer { heard: now, times: 1 })),
                None => {}
            }
            return;
        }
        state.link_deaf = None;
        state.deaf = None;
        if let Some((_, sent)) = state.sent.iter().find(|(sent, _)| number.parse() == Ok(*sent)) {
            telemetry.lag(now.saturating_duration_since(*sent));
        }
        if state.unready {
            state.heard_since_unready += 1;
            if state.heard_since_unready >= HEARD_AGAIN {
                state.unready = false;
                readiness.better();
            }
        }
    }

    /// The age of the oldest newest canary of the peers.
    pub(super) fn peer_age(&self, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock();
        state
            .peers
            .retain(|_, peer| now.saturating_duration_since(peer.heard) < PEER_LIFE);
        let nodes = state.peers.values().filter(|peer| peer.times >= PEER_HEARD_MIN);
        let oldest = nodes.map(|peer| peer.heard).min();
        oldest.map(|oldest| now.saturating_duration_since(oldest))
    }

    /// The link has brought no own canary for too long: it is to be made anew.
    pub(super) fn is_link_deaf(&self, now: Instant) -> bool {
        let state = self.0.lock();
        state
            .link_deaf
            .is_some_and(|since| now.saturating_duration_since(since) > interval(&state) * MISSED_MAX)
    }

    /// New links did not help: the permit to be unready is to be asked for, now.
    pub(super) fn wants_permit(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let long =
            |since: Option<Instant>, than| since.is_some_and(|since| now.saturating_duration_since(since) > than);
        let is_deaf = long(state.deaf, interval(&state) * DEAF_MAX);
        let is_due = state.asked.is_none() || long(state.asked, PERMIT_LIFE / 3);
        if is_deaf && is_due {
            state.asked = Some(now);
        }
        is_deaf && is_due
    }

    /// The permit was granted, or renewed, or not.
    pub(super) fn permitted(&self, granted: bool, readiness: &Readiness) {
        let mut state = self.0.lock();
        match (state.unready, granted) {
            (false, true) => {
                state.heard_since_unready = 0;
                readiness.deafer();
            }
            (true, false) => readiness.better(),
            _ => {}
        }
        state.unready = granted;
    }
}

fn interval(state: &State) -> Duration {
    let nodes = u32::try_from(state.peers.len()).unwrap_or(u32::MAX).saturating_add(1);
    Duration::from_secs(1).max(Duration::from_secs(1) * nodes / NODES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI32;

    use super::super::super::contract::{Control, Entry, PresenceEvent, Scope};
    use super::*;

    #[derive(Default)]
    struct Heard(AtomicI32);

    impl Sink for Heard {
        fn message(&self, _: &str, _: Entry) {}
        fn presence(&self, _: &str, _: PresenceEvent) {}
        fn control(&self, _: Control) {}
        fn control_suspect(&self) {}
        fn suspect(&self, _: Scope<'_>) {}
        fn up(&self, _: bool) {}
        fn unready(&self, unready: bool) {
            self.0.fetch_add(if unready { 1 } else { -1 }, Ordering::Relaxed);
        }
    }

    fn all() -> (Canary, Arc<Heard>, Arc<Readiness>, Telemetry) {
        let heard = Arc::new(Heard::default());
        let readiness = Readiness::new(Arc::clone(&heard) as Arc<dyn Sink>);
        (Canary::default(), heard, readiness, Telemetry::none())
    }

    #[test]
    fn a_silent_link_is_made_anew_and_then_the_node_asks_to_be_left_alone() {
        let (canary, heard, readiness, telemetry) = all();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        canary.begin("me");
        let first = canary.next(start);
        canary.sending(start);
        assert!(!canary.is_link_deaf(at(2_900)));
        assert!(canary.is_link_deaf(at(3_100)));
        canary.begin("me");
        canary.sending(at(3_200));
        assert!(!canary.is_link_deaf(at(5_100)), "a new link has its own time");
        assert!(canary.wants_permit(at(5_100)));
        assert!(!canary.wants_permit(at(5_200)), "once every three seconds");
        canary.permitted(true, &readiness);
        for _ in 0..3 {
            assert_eq!(heard.0.load(Ordering::Relaxed), 1);
            canary.heard(first.as_bytes(), &telemetry, &readiness);
        }
        assert_eq!(heard.0.load(Ordering::Relaxed), 0, "three canaries");
    }

    #[test]
    fn while_commands_fail_nobody_is_to_blame() {
        let (canary, heard, readiness, _) = all();
        let start = Instant::now();
        canary.begin("me");
        canary.sending(start);
        canary.permitted(true, &readiness);
        canary.failed(&readiness);
        assert_eq!(heard.0.load(Ordering::Relaxed), 0);
        assert!(!canary.is_link_deaf(start + Duration::from_secs(60)));
        assert!(!canary.wants_permit(start + Duration::from_secs(60)));
    }

    #[test]
    fn who_was_there_for_a_moment_is_not_missed() {
        let (canary, _, readiness, telemetry) = all();
        canary.begin("me");
        let age = |canary: &Canary| canary.peer_age(Instant::now());
        (1..=2).for_each(|number| canary.heard(format!("command {number}").as_bytes(), &telemetry, &readiness));
        assert_eq!(age(&canary), None);
        (1..=3).for_each(|number| canary.heard(format!("node {number}").as_bytes(), &telemetry, &readiness));
        assert!(age(&canary).is_some());
    }

    #[test]
    fn many_nodes_send_less_often() {
        let (canary, _, readiness, telemetry) = all();
        canary.begin("me");
        assert_eq!(canary.interval(), Duration::from_secs(1));
        (0..99).for_each(|node| canary.heard(format!("n{node} 1").as_bytes(), &telemetry, &readiness));
        assert_eq!(canary.interval(), Duration::from_secs(5));
    }
}
