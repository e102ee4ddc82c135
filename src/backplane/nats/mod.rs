//! NATS JetStream as a backplane: a few streams for all rooms, a subject per room, and what JetStream republishes of each
//! stored message as the wake-up. `names` has the layout, `layout` the streams.
//!
//! What it cannot do is in [`Nats::capabilities`], and for operators in README.

mod api;
mod canary;
mod clock;
mod control;
mod epochs;
mod feed;
mod history;
mod layout;
mod lease;
mod link;
mod log;
mod names;
mod once;
mod places;
mod presence;
mod problem;
mod revocations;
mod rooms;
mod settings;
mod stored;
mod supervise;
mod tallies;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::config::Config;
use crate::runtime::Tasks;
use crate::telemetry::metrics::{CallKind, Metrics};

use super::contract::{
    Advertised, Backplane, Call, Capabilities, Change, Control, Counted, Draft, Failed, Head, Incarnation, Opened,
    Outcome, Page, Position, Presented, Range, Refusal, Renewal, Revocation, RoomKey, Sink, Tally, Users,
};
use canary::Marks;
use clock::Clock;
use epochs::Epochs;
use feed::Room;
use link::Link;
use settings::Settings;

/// Requests of one call that are under way together.
const TOGETHER: usize = 16;

/// NATS JetStream. One connection at a time carries everything.
pub struct Nats {
    settings: Settings,
    metrics: Arc<Metrics>,
    /// Names this node's canaries: a random word.
    node: String,
    clock: Clock,
    /// The connection, while there is one that is good for all.
    link: ArcSwapOption<Link>,
    sink: OnceLock<Arc<dyn Sink>>,
    /// Attached rooms, by name.
    rooms: Mutex<HashMap<Arc<str>, Arc<Room>>>,
    epochs: Epochs,
    /// How far each stream of rooms is known.
    marks: Marks,
    /// Buried incarnations, with when this node heard of it.
    buried: Mutex<HashMap<Incarnation, Instant>>,
    sweeps: presence::Sweeps,
    /// How far the control log was heard.
    heard: control::Position,
}

impl Nats {
    /// # Errors
    /// A prefix that no subject can begin with.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            settings: Settings::new(config)?,
            metrics,
            node: Uuid::new_v4().simple().to_string(),
            clock: Clock::default(),
            link: ArcSwapOption::empty(),
            sink: OnceLock::new(),
            rooms: Mutex::default(),
            epochs: Epochs::new(),
            marks: Marks::default(),
            buried: Mutex::default(),
            sweeps: presence::Sweeps::default(),
            heard: control::Position::default(),
        }))
    }

    /// The link, if there is one.
    fn link(&self) -> Result<Arc<Link>, Failed> {
        let link = self.link.load_full().filter(|link| link.is_usable());
        link.ok_or(Failed::Refused(Refusal::Away))
    }

    /// Tells the part above, once it listens.
    fn tell_sink(&self, what: impl FnOnce(&dyn Sink)) {
        if let Some(sink) = self.sink.get() {
            what(&**sink);
        }
    }

    /// Counts a call and times it.
    fn counted<'a, T: Send + 'a>(
        &'a self,
        call: CallKind,
        work: impl Future<Output = Result<T, problem::Problem>> + Send + 'a,
    ) -> Call<'a, T> {
        Box::pin(async move {
            let began = Instant::now();
            let done = work.await.map_err(Failed::from);
            let result = match &done {
                Ok(_) => "ok",
                Err(failed) => word(*failed),
            };
            self.metrics
                .backplane()
                .call(call, result, began.elapsed().as_secs_f64());
            done
        })
    }
}

/// The metric's label.
const fn word(failed: Failed) -> &'static str {
    match failed {
        Failed::Refused(refusal) => refusal.as_str(),
        Failed::Unknown => "unknown",
    }
}

impl Backplane for Nats {
    fn kind(&self) -> &'static str {
        "nats"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dense: false,
            atomic: false,
            history_age: true,
            lineage: false,
            fenced_presence: false,
            exact_counts: false,
            outbox: false,
        }
    }

    fn start<'a>(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        tasks: &'a Tasks,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> {
        Box::pin(self.begin(sink, tasks))
    }

    fn publish<'a>(
        &'a self,
        room: &'a RoomKey,
        drafts: &'a [Draft],
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>> {
        Box::pin(async move {
            let began = Instant::now();
            let outcomes = self.append(room, drafts, within).await;
            let result = match outcomes.last() {
                Some(Outcome::Refused(refusal)) => refusal.as_str(),
                Some(Outcome::Unknown) => "unknown",
                _ => "ok",
            };
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.backplane().call(CallKind::Publish, result, seconds);
            outcomes
        })
    }

    fn attach<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Opened> {
        self.counted(CallKind::Attach, self.open(room))
    }

    fn detach<'a>(&'a self, room: &'a RoomKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move { self.close(room) })
    }

    fn range<'a>(&'a self, room: &'a RoomKey, after: &'a Position, limit: usize) -> Call<'a, Range> {
        self.counted(CallKind::Range, self.successors(room, after, limit))
    }

    fn before<'a>(&'a self, room: &'a RoomKey, seq: u64, limit: usize) -> Call<'a, Page> {
        self.counted(CallKind::Before, self.page(room, seq, limit))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomKey]) -> Call<'a, Vec<Option<Head>>> {
        self.counted(CallKind::Heads, self.where_they_stand(rooms))
    }

    fn users<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Users> {
        self.counted(CallKind::Users, self.who_is_in(room))
    }

    fn present<'a>(&'a self, incarnation: &'a Incarnation, changes: &'a [Change]) -> Call<'a, Presented> {
        self.counted(CallKind::Present, self.move_users(incarnation, changes))
    }

    fn assert_held<'a>(&'a self, incarnation: &'a Incarnation, held: &'a [Change]) -> Call<'a, Presented> {
        self.counted(CallKind::Present, self.hold_exactly(incarnation, held))
    }

    fn renew<'a>(&'a self, incarnation: &'a Incarnation, begin: bool, lease: Duration) -> Call<'a, Renewal> {
        self.counted(CallKind::Renew, self.renew_lease(incarnation, begin, lease))
    }

    fn advertise<'a>(&'a self, incarnation: &'a Incarnation, facts: &'a [u8]) -> Call<'a, Vec<Advertised>> {
        self.counted(CallKind::Renew, self.advertise_facts(incarnation, facts))
    }

    fn count<'a>(&'a self, incarnation: &'a Incarnation, user: &'a str, tally: Tally, max: u32) -> Call<'a, Counted> {
        self.counted(CallKind::Present, self.count_one(incarnation, user, tally, max))
    }

    fn recount<'a>(&'a self, incarnation: &'a Incarnation, users: &'a [(Arc<str>, Tally)]) -> Call<'a, Presented> {
        self.counted(CallKind::Present, self.count_again(incarnation, users))
    }

    fn reap<'a>(&'a self, dead: &'a Incarnation) -> Call<'a, bool> {
        self.counted(CallKind::Reap, self.reap_dead(dead))
    }

    fn resign<'a>(&'a self, incarnation: &'a Incarnation) -> Call<'a, ()> {
        self.counted(CallKind::Reap, self.resign_lease(incarnation))
    }

    fn tell<'a>(&'a self, control: &'a Control) -> Call<'a, ()> {
        self.counted(CallKind::Control, self.tell_all(control))
    }

    fn revocations(&self) -> Call<'_, Vec<Revocation>> {
        self.counted(CallKind::Control, self.kept_revocations())
    }

    fn merge_revocations<'a>(&'a self, known: &'a [Revocation]) -> Call<'a, ()> {
        self.counted(CallKind::Control, self.merge(known))
    }

    fn put<'a>(&'a self, name: &'a str, value: &'a [u8], lifetime: Duration) -> Call<'a, bool> {
        self.counted(CallKind::Control, self.put_once(name, value, lifetime))
    }

    fn get<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        self.counted(CallKind::Control, self.get_kept(name))
    }

    fn take<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        self.counted(CallKind::Control, self.take_once(name))
    }
}
