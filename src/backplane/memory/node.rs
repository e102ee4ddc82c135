//! One node's handle to the engine of its process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::room::Room;
use super::{Ear, Memory, SWEEP};
use crate::backplane::contract::{
    Advertised, Backplane, Call, Capabilities, Change, Control, Counted, Draft, Found, Head, Incarnation, Opened,
    Outcome, Page, Position, Presented, Range, Refusal, Renewal, Revocation, RoomKey, Sink, Tally, Users,
};
use crate::backplane::lineage::Lineage;
use crate::runtime::Tasks;

/// A node in the eyes of [`Memory`].
pub struct Node {
    memory: Arc<Memory>,
    ear: Arc<Ear>,
}

impl Node {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory,
            ear: Arc::default(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Backplane for Node {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dense: true,
            atomic: true,
            history_age: true,
            lineage: true,
            fenced_presence: true,
            exact_counts: true,
            outbox: false,
        }
    }

    fn start<'a>(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        tasks: &'a Tasks,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> {
        Box::pin(async move {
            anyhow::ensure!(self.ear.sink.set(Arc::clone(&sink)).is_ok(), "started twice");
            self.memory.ears.lock().push(Arc::clone(&self.ear));
            let memory = Arc::clone(&self.memory);
            tasks.spawn("forget", async move {
                let mut ticks = tokio::time::interval(SWEEP);
                loop {
                    ticks.tick().await;
                    memory.sweep().await;
                }
            });
            sink.up(true);
            sink.control_suspect();
            Ok(())
        })
    }

    fn publish<'a>(
        &'a self,
        room: &'a RoomKey,
        drafts: &'a [Draft],
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>> {
        let not_after_ms = self.memory.clock.elapsed_ms().saturating_add(millis(within));
        Box::pin(async move {
            // Whoever made this future may not have come to poll it in time.
            if self.memory.clock.elapsed_ms() > not_after_ms {
                return vec![Outcome::Refused(Refusal::Late); drafts.len()];
            }
            self.memory.publish(room, drafts)
        })
    }

    fn attach<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Opened> {
        Box::pin(async { Ok(self.memory.attach(room, &self.ear)) })
    }

    fn detach<'a>(&'a self, room: &'a RoomKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async { self.memory.detach(room, &self.ear) })
    }

    fn range<'a>(&'a self, room: &'a RoomKey, after: &'a Position, limit: usize) -> Call<'a, Range> {
        Box::pin(async move {
            let range = self.memory.read(room, |room| room.range(after, limit));
            Ok(range.unwrap_or_else(|| Range {
                found: Found::None,
                head: 0,
                lineage: Lineage::default(),
            }))
        })
    }

    fn before<'a>(&'a self, room: &'a RoomKey, seq: u64, limit: usize) -> Call<'a, Page> {
        Box::pin(async move {
            Ok(self
                .memory
                .read(room, |room| room.before(seq, limit))
                .unwrap_or_default())
        })
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomKey]) -> Call<'a, Vec<Option<Head>>> {
        Box::pin(async {
            let heads = rooms.iter().map(|room| self.memory.read(room, Room::state));
            Ok(heads.collect())
        })
    }

    fn users<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Users> {
        Box::pin(async { Ok(self.memory.read(room, Room::users).unwrap_or_default()) })
    }

    fn present<'a>(&'a self, incarnation: &'a Incarnation, changes: &'a [Change]) -> Call<'a, Presented> {
        Box::pin(async { Ok(self.memory.present(incarnation, changes)) })
    }

    fn assert_held<'a>(&'a self, incarnation: &'a Incarnation, held: &'a [Change]) -> Call<'a, Presented> {
        Box::pin(async { Ok(self.memory.assert_held(incarnation, held)) })
    }

    fn renew<'a>(&'a self, incarnation: &'a Incarnation, begin: bool, lease: Duration) -> Call<'a, Renewal> {
        Box::pin(async move {
            let now_ms = self.memory.clock.elapsed_ms();
            let mut lives = self.memory.lives.lock();
            Ok(lives.renew(incarnation, begin, millis(lease), now_ms))
        })
    }

    fn advertise<'a>(&'a self, incarnation: &'a Incarnation, facts: &'a [u8]) -> Call<'a, Vec<Advertised>> {
        Box::pin(async {
            let now_ms = self.memory.clock.elapsed_ms();
            Ok(self.memory.lives.lock().advertise(incarnation, facts, now_ms))
        })
    }

    fn count<'a>(&'a self, incarnation: &'a Incarnation, user: &'a str, tally: Tally, max: u32) -> Call<'a, Counted> {
        Box::pin(async move {
            let now_ms = self.memory.clock.elapsed_ms();
            Ok(self.memory.lives.lock().count(incarnation, user, tally, max, now_ms))
        })
    }

    fn recount<'a>(&'a self, incarnation: &'a Incarnation, users: &'a [(Arc<str>, Tally)]) -> Call<'a, Presented> {
        Box::pin(async {
            let now_ms = self.memory.clock.elapsed_ms();
            Ok(self.memory.lives.lock().recount(incarnation, users, now_ms))
        })
    }

    fn reap<'a>(&'a self, dead: &'a Incarnation) -> Call<'a, bool> {
        Box::pin(async { Ok(self.memory.reap(dead, false)) })
    }

    fn resign<'a>(&'a self, incarnation: &'a Incarnation) -> Call<'a, ()> {
        Box::pin(async {
            // Nothing is lost when this is dropped halfway: the incarnation is buried by then, and others reap it.
            while !self.memory.reap(incarnation, true) {
                tokio::task::yield_now().await;
            }
            Ok(())
        })
    }

    fn tell<'a>(&'a self, control: &'a Control) -> Call<'a, ()> {
        Box::pin(async {
            match control {
                Control::Revoke(revocation) => self.memory.revoke(revocation, true),
                Control::Kick { .. } => {
                    let _order = self.memory.telling.lock();
                    self.memory.tell(control);
                    Ok(())
                }
            }
        })
    }

    fn revocations(&self) -> Call<'_, Vec<Revocation>> {
        Box::pin(async {
            let now_s = self.memory.clock.unix_ms() / 1_000;
            Ok(self.memory.register.lock().revocations(now_s))
        })
    }

    fn merge_revocations<'a>(&'a self, known: &'a [Revocation]) -> Call<'a, ()> {
        Box::pin(async { known.iter().try_for_each(|entry| self.memory.revoke(entry, false)) })
    }

    fn put<'a>(&'a self, name: &'a str, value: &'a [u8], lifetime: Duration) -> Call<'a, bool> {
        Box::pin(async move {
            let now_ms = self.memory.clock.elapsed_ms();
            let gone_ms = now_ms.saturating_add(millis(lifetime));
            self.memory.register.lock().put(name, value, gone_ms, now_ms)
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        Box::pin(async {
            let now_ms = self.memory.clock.elapsed_ms();
            Ok(self.memory.register.lock().get(name, now_ms))
        })
    }

    fn take<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        Box::pin(async {
            let now_ms = self.memory.clock.elapsed_ms();
            Ok(self.memory.register.lock().take(name, now_ms))
        })
    }
}
