//! What the engine hears, brought to the rooms. Called by the task that reads the link, so nothing here waits.

use std::sync::Arc;

use crate::backplane::contract::{Control, Entry, PresenceEvent, Scope, Sink};
use crate::backplane::driver::Driver;
use crate::http::health::Health;
use crate::runtime::now_ms;

/// News of the control log.
#[derive(Debug)]
pub enum News {
    /// With the time at which it was told, ms since the Unix epoch.
    Told(Control, u64),
    /// The log is followed, and some may have been missed.
    Suspect,
    /// The engine can be reached again: revocations can be read. Whether the log is followed yet is another matter.
    Up,
}

/// The sink of a node.
pub struct Ear {
    driver: Arc<Driver>,
    on_control: Box<dyn Fn(News) + Send + Sync>,
    health: Health,
    /// Not ready while commands fail too.
    unready_when_away: bool,
}

impl Ear {
    #[must_use]
    pub fn new(
        driver: Arc<Driver>,
        on_control: Box<dyn Fn(News) + Send + Sync>,
        health: Health,
        unready_when_away: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            driver,
            on_control,
            health,
            unready_when_away,
        })
    }

    fn ready(&self, ready: bool) {
        if ready {
            self.health.ok("backplane");
        } else {
            self.health.fail("backplane");
        }
    }
}

impl Sink for Ear {
    fn message(&self, room: &str, entry: Entry) {
        self.messages(room, vec![entry]);
    }

    fn messages(&self, room: &str, entries: Vec<Entry>) {
        if let Some(room) = self.driver.hub.find(room) {
            room.on_messages(&entries, |heard| self.driver.heard(heard));
        }
    }

    fn presence(&self, room: &str, event: PresenceEvent) {
        let Some(room) = self.driver.hub.find(room) else { return };
        if let Some((told, count_is_due)) = room.on_presence(&event) {
            self.driver.told(told);
            if count_is_due {
                self.driver.hub.count_is_due(&room);
            }
        }
    }

    fn control(&self, control: Control) {
        self.control_at(control, now_ms());
    }

    fn control_at(&self, control: Control, time_ms: u64) {
        (self.on_control)(News::Told(control, time_ms));
    }

    fn control_suspect(&self) {
        (self.on_control)(News::Suspect);
    }

    fn suspect(&self, scope: Scope<'_>) {
        self.driver.suspects.add(scope);
        if !matches!(scope, Scope::Room(_)) {
            self.driver.presence.suspect();
        }
    }

    fn up(&self, up: bool) {
        let was = self.driver.errands.is_up();
        self.driver.errands.set_up(up, now_ms());
        self.driver.errands.metrics.backplane().up(up);
        if self.unready_when_away {
            self.ready(up);
        }
        if up && !was {
            tracing::info!("the backplane can be reached");
            self.driver.suspects.add(Scope::All);
            self.driver.presence.on_up();
            self.driver.hub.post().on_suspect();
            (self.on_control)(News::Up);
        } else if was && !up {
            tracing::warn!("the backplane cannot be reached: chats are answered unavailable until it can");
        }
    }

    fn unready(&self, unready: bool) {
        self.driver.errands.metrics.backplane().unready(unready);
        self.ready(!unready);
    }
}
