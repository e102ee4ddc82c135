//! A message a second through the real script in a hidden room, heard by all nodes: what says that a link is alive.

use std::collections::VecDeque;
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

/// A peer not heard for so long has gone.
const PEER_LIFE: Duration = Duration::from_secs(60);

/// Peers that are remembered.
const PEERS_MAX: usize = 4_096;

/// Canaries of our own under way.
const SENT_MAX: usize = 16;

/// What one shard's canary has heard and missed.
#[derive(Debug, Default)]
pub(super) struct Canary(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// This node's name in its canaries.
    me: String,
    next: u64,
    sent: VecDeque<(u64, Instant)>,
    peers: HashMap<String, Instant>,
    /// The last own one on this link, or the link's beginning.
    heard: Option<Instant>,
    /// Since when commands are answered but no own canary comes.
    deaf: Option<Instant>,
    unready: bool,
    heard_since_unready: u32,
}

/// What is to be done about a canary that does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// It comes.
    None,
    /// The link is to be made anew.
    Link,
    /// New links did not help: ask for the permit to be unready.
    Node,
}

impl Canary {
    /// A new link. What this node missed on earlier ones still counts for its readiness.
    pub(super) fn begin(&self, me: &str, now: Instant) {
        let mut state = self.0.lock();
        me.clone_into(&mut state.me);
        state.sent.clear();
        state.heard = Some(now);
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

    /// It was stored or not. While commands fail everybody is in the same state, and nobody is to blame.
    pub(super) fn sent(&self, stored: bool, now: Instant) {
        let mut state = self.0.lock();
        state.deaf = if stored { state.deaf.or(Some(now)) } else { None };
    }

    /// How long until the next one.
    pub(super) fn interval(&self) -> Duration {
        let peers = u32::try_from(self.0.lock().peers.len()).unwrap_or(u32::MAX);
        Duration::from_secs(1).max(Duration::from_secs(1) * peers.saturating_add(1) / NODES_PER_SECOND)
    }

    /// One came.
    pub(super) fn heard(&self, envelope: &[u8], telemetry: &Telemetry, sink: &dyn Sink) {
        let now = Instant::now();
        let mut state = self.0.lock();
        let Some((who, number)) = std::str::from_utf8(envelope).ok().and_then(|text| text.split_once(' ')) else {
            return;
        };
        if who != state.me {
            if state.peers.len() < PEERS_MAX || state.peers.contains_key(who) {
                state.peers.insert(who.to_owned(), now);
            }
            return;
        }
        state.heard = Some(now);
        state.deaf = None;
        if let Some((_, sent)) = state.sent.iter().find(|(sent, _)| number.parse() == Ok(*sent)) {
            telemetry.lag(now.saturating_duration_since(*sent));
        }
        if state.unready {
            state.heard_since_unready += 1;
            if state.heard_since_unready >= HEARD_AGAIN {
                state.unready = false;
                sink.unready(false);
                telemetry.unready(false);
            }
        }
    }

    /// Looks at what was missed.
    pub(super) fn silence(&self, now: Instant, telemetry: &Telemetry) -> Silence {
        let interval = self.interval();
        let mut state = self.0.lock();
        state.peers.retain(|_, heard| now.saturating_duration_since(*heard) < PEER_LIFE);
        if let Some(oldest) = state.peers.values().min() {
            telemetry.peer_age(now.saturating_duration_since(*oldest));
        }
        let since = |then: Option<Instant>| then.map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        if since(state.deaf) > interval * DEAF_MAX {
            Silence::Node
        } else if since(state.heard) > interval * MISSED_MAX {
            Silence::Link
        } else {
            Silence::None
        }
    }

    /// Whether the link itself has waited long enough.
    pub(super) fn is_link_silent(&self, now: Instant) -> bool {
        let interval = self.interval();
        let heard = self.0.lock().heard;
        heard.is_some_and(|heard| now.saturating_duration_since(heard) > interval * MISSED_MAX)
    }

    /// The permit was granted.
    pub(super) fn unready(&self, telemetry: &Telemetry, sink: &dyn Sink) {
        let mut state = self.0.lock();
        state.heard_since_unready = 0;
        if !state.unready {
            state.unready = true;
            sink.unready(true);
            telemetry.unready(true);
        }
    }

    /// The permit was not renewed, or commands fail too.
    pub(super) fn ready(&self, telemetry: &Telemetry, sink: &dyn Sink) {
        let mut state = self.0.lock();
        if state.unready {
            state.unready = false;
            sink.unready(false);
            telemetry.unready(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::super::super::contract::{Control, Entry, PresenceEvent, Scope};
    use super::*;

    #[derive(Default)]
    struct Readiness(AtomicI32);

    impl Sink for Readiness {
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

    #[test]
    fn a_silent_link_is_made_anew_and_then_the_node_asks_to_be_left_alone() {
        let (canary, sink, telemetry) = (Canary::default(), Readiness::default(), Telemetry::none());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        canary.begin("me", start);
        let first = canary.next(start);
        canary.sent(true, start);
        assert_eq!(canary.silence(at(2_900), &telemetry), Silence::None);
        assert_eq!(canary.silence(at(3_100), &telemetry), Silence::Link);
        canary.begin("me", at(3_200));
        assert_eq!(canary.silence(at(5_100), &telemetry), Silence::Node);
        canary.unready(&telemetry, &sink);
        assert_eq!(sink.0.load(Ordering::Relaxed), 1);
        for _ in 0..3 {
            assert_eq!(sink.0.load(Ordering::Relaxed), 1);
            canary.heard(first.as_bytes(), &telemetry, &sink);
        }
        assert_eq!(sink.0.load(Ordering::Relaxed), 0);
        assert_eq!(canary.silence(Instant::now(), &telemetry), Silence::None);
    }

    #[test]
    fn while_commands_fail_nobody_is_to_blame() {
        let (canary, telemetry) = (Canary::default(), Telemetry::none());
        let start = Instant::now();
        canary.begin("me", start);
        canary.sent(true, start);
        canary.sent(false, start + Duration::from_secs(4));
        assert_eq!(canary.silence(start + Duration::from_secs(6), &telemetry), Silence::Link);
    }

    #[test]
    fn many_nodes_send_less_often() {
        let (canary, sink, telemetry) = (Canary::default(), Readiness::default(), Telemetry::none());
        canary.begin("me", Instant::now());
        assert_eq!(canary.interval(), Duration::from_secs(1));
        (0..99).for_each(|node| canary.heard(format!("n{node} 1").as_bytes(), &telemetry, &sink));
        assert_eq!(canary.interval(), Duration::from_secs(5));
    }
}
