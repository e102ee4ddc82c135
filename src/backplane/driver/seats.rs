//! `limits.connections_per_user`: who of this node has how many connections, told to the backplane and held against what
//! the other nodes have. Without a limit nothing is counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::auth::Identity;
use crate::backplane::contract::{Counted, Presented, Tally};
use crate::backplane::driver::Driver;

/// How long changes gather before they go.
const GATHER: Duration = Duration::from_millis(10);

/// Users in one call.
const USERS_PER_CALL: usize = 128;

/// After a call that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How often everything is told again, in case the backplane has lost some of it.
const REPEAT: Duration = Duration::from_mins(20);

/// Connections of each user on this node.
pub struct Seats {
    /// 0: no limit.
    max: u32,
    /// Other nodes are told.
    is_shared: bool,
    state: Mutex<State>,
    noticed: Notify,
}

#[derive(Default)]
struct State {
    users: HashMap<Arc<str>, u32>,
    /// Whose count the backplane may have otherwise.
    untold: HashSet<Arc<str>>,
    /// Of the last tally.
    version: u64,
}

impl State {
    fn tally(&mut self, user: &str) -> Tally {
        self.version += 1;
        Tally {
            connections: self.users.get(user).copied().unwrap_or(0),
            version: self.version,
        }
    }
}

impl Seats {
    /// `max` of 0 means no limit; `is_shared` says whether there is a driver that tells other nodes.
    #[must_use]
    pub fn new(max: u32, is_shared: bool) -> Self {
        Self {
            max,
            is_shared,
            state: Mutex::default(),
            noticed: Notify::new(),
        }
    }

    /// Whether connections of this one are counted. Those of probes are not.
    #[must_use]
    pub fn count(&self, identity: &Identity) -> bool {
        self.are_limited() && !identity.is_probe
    }

    /// Whether there is a limit.
    fn are_limited(&self) -> bool {
        self.max > 0
    }

    /// One more connection of `user` on this node; `None` if that is one too many already here.
    fn take(&self, user: &Arc<str>) -> Option<Tally> {
        let mut state = self.state.lock();
        let here = state.users.entry(Arc::clone(user)).or_insert(0);
        if *here >= self.max {
            return None;
        }
        *here += 1;
        Some(state.tally(user))
    }

    /// One connection less.
    pub fn leave(&self, user: &Arc<str>) {
        if !self.are_limited() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(here) = state.users.get_mut(user) {
            *here -= 1;
            if *here == 0 {
                state.users.remove(user);
            }
        }
        drop(state);
        self.doubt(user);
    }

    /// The backplane may have this user's count otherwise.
    fn doubt(&self, user: &Arc<str>) {
        if !self.is_shared {
            return;
        }
        self.state.lock().untold.insert(Arc::clone(user));
        self.noticed.notify_one();
    }

    /// Whose count has changed while these were told: what was told may have replaced something newer.
    fn doubt_changed(&self, told: &[(Arc<str>, Tally)]) {
        let mut state = self.state.lock();
        let State { users, untold, .. } = &mut *state;
        let changed = told
            .iter()
            .filter(|(user, tally)| users.get(user).copied().unwrap_or(0) != tally.connections);
        untold.extend(changed.map(|(user, _)| Arc::clone(user)));
    }

    /// The backplane may have anything. What it has of users who left went with the life that said it, if a new one begins.
    pub fn suspect(&self, new_life: bool) {
        if !self.are_limited() {
            return;
        }
        let mut state = self.state.lock();
        if new_life {
            state.untold.clear();
        }
        let State { users, untold, .. } = &mut *state;
        untold.extend(users.keys().cloned());
        drop(state);
        self.noticed.notify_one();
    }

    fn untold(&self) -> Vec<(Arc<str>, Tally)> {
        let mut state = self.state.lock();
        let some: Vec<_> = state.untold.iter().take(USERS_PER_CALL).cloned().collect();
        some.into_iter()
            .map(|user| {
                state.untold.remove(&user);
                let tally = state.tally(&user);
                (user, tally)
            })
            .collect()
    }
}

/// One more connection of a user: counted, until [`Seats::leave`], on a node without others. False if it is one too many.
#[must_use]
pub fn seat_here(seats: &Seats, user: &Arc<str>) -> bool {
    seats.take(user).is_some()
}

impl Driver {
    /// As [`seat_here`], with the connections that the user has on other nodes. While the backplane is away only those of
    /// this node count.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropped while it waits, the connection stays counted.
    pub async fn seat(&self, user: &Arc<str>) -> bool {
        let seats = &self.seats;
        let Some(tally) = seats.take(user) else {
            return false;
        };
        let incarnation = self.errands.is_up().then(|| self.presence.begun()).flatten();
        let Some(incarnation) = incarnation else {
            seats.doubt(user);
            return true;
        };
        match self.backplane.count(&incarnation, user, tally, seats.max).await {
            Ok(Counted::Within) => true,
            Ok(Counted::Over) => {
                // Tells how many there are without this one, too: an engine may have noted it.
                seats.leave(user);
                false
            }
            Ok(Counted::Fenced) | Err(_) => {
                seats.doubt(user);
                true
            }
        }
    }
}

/// Tells what has changed, until the task is dropped.
pub(super) async fn run(driver: Arc<Driver>) {
    let seats = Arc::clone(&driver.seats);
    if !seats.are_limited() {
        return;
    }
    let mut repeats = tokio::time::interval(REPEAT);
    repeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Nothing is lost: who is to be told of waits in `untold`.
        tokio::select! {
            () = seats.noticed.notified() => tokio::time::sleep(GATHER).await,
            _ = repeats.tick() => seats.suspect(false),
        }
        while !driver.tell_seats().await {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

impl Driver {
    /// Tells of everybody who is untold; false if that must be tried again.
    async fn tell_seats(&self) -> bool {
        loop {
            let Some(incarnation) = self.presence.begun() else {
                return false;
            };
            let some = self.seats.untold();
            if some.is_empty() {
                return true;
            }
            let told = self.backplane.recount(&incarnation, &some).await;
            if !matches!(told, Ok(Presented::Done)) {
                for (user, _) in &some {
                    self.seats.doubt(user);
                }
                return false;
            }
            self.seats.doubt_changed(&some);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Arc<str> {
        "ann".into()
    }

    #[test]
    fn who_comes_back_while_the_leaving_is_told_is_told_again() {
        let seats = Seats::new(2, true);
        assert!(seat_here(&seats, &ann()));
        seats.leave(&ann());
        let told = seats.untold();
        assert_eq!(told[0].1.connections, 0);
        assert!(seat_here(&seats, &ann()));
        seats.doubt_changed(&told);
        let told = seats.untold();
        assert_eq!(told[0].1.connections, 1);
        seats.doubt_changed(&told);
        assert!(seats.untold().is_empty(), "nothing has changed since");
    }

    #[test]
    fn a_node_alone_counts_for_itself() {
        let seats = Seats::new(2, false);
        assert!(seat_here(&seats, &ann()) && seat_here(&seats, &ann()));
        assert!(!seat_here(&seats, &ann()));
        assert!(seat_here(&seats, &"bob".into()));
        seats.leave(&ann());
        assert!(seat_here(&seats, &ann()));
        for user in [ann(), ann(), "bob".into()] {
            seats.leave(&user);
        }
        let state = seats.state.lock();
        assert!(
            state.users.is_empty() && state.untold.is_empty(),
            "no entry stays behind"
        );
    }

    #[test]
    fn each_is_told_once_with_the_newest_count() {
        let seats = Seats::new(5, true);
        let first = seats.take(&ann()).unwrap();
        let second = seats.take(&ann()).unwrap();
        assert_eq!((first.connections, second.connections), (1, 2));
        assert!(second.version > first.version);
        assert!(seats.untold().is_empty(), "entering told it");
        seats.leave(&ann());
        seats.leave(&ann());
        let told = seats.untold();
        assert_eq!((told.len(), told[0].1.connections), (1, 0));
        assert!(seats.untold().is_empty());
    }

    #[test]
    fn a_new_life_knows_only_who_is_here() {
        let seats = Seats::new(5, true);
        seats.take(&ann());
        seats.take(&"bob".into());
        seats.leave(&"bob".into());
        seats.suspect(true);
        let told = seats.untold();
        assert_eq!((told.len(), &*told[0].0), (1, "ann"));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let seats = Seats::new(0, true);
        seats.leave(&ann());
        seats.suspect(false);
        assert!(!seats.are_limited() && seats.untold().is_empty());
    }
}
