//! Redis and Valkey, from version 7: one server, Sentinel, Cluster.
//!
//! ```text
//! mod        the contract's methods         log       messages: publish, open, range, before, heads
//! settings   what it is told                presence  who is where; leases
//! keys       names of what is stored        control   revocations, kicks; their log
//! payload    what channels bring            once      what is used once
//! script     calls by digest                shard     one master and the links to it
//! calls      the right shard, again         topology  which shard holds what
//! error      what was not done, and why     dial link one connection
//! reply      answers of scripts             clock     the server's time
//! ```

mod calls;
#[cfg(test)]
mod child;
mod clock;
mod control;
mod dial;
mod error;
mod keys;
mod link;
mod log;
mod once;
mod payload;
mod presence;
mod reply;
mod script;
mod settings;
mod shard;
mod topology;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::contract::{
    Backplane, Call, Capabilities, Change, Control, Draft, Head, Incarnation, Opened, Outcome, Page, Position,
    Presented, Range, Renewal, Revocation, RoomKey, Sink, Users,
};
use crate::runtime::Tasks;
use dial::Dialer;
use keys::Keys;
use settings::{Places, Settings};
use shard::Shard;
use topology::Map;

/// The engine.
#[derive(Debug)]
pub struct Redis {
    settings: Settings,
    keys: Keys,
    map: ArcSwap<Map>,
    started: OnceLock<Started>,
    order: presence::Order,
}

/// What is there from the start on.
struct Started {
    sink: Arc<dyn Sink>,
    tasks: Tasks,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

impl Redis {
    fn with_settings(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            keys: Keys::new(&settings.prefix, settings.db),
            map: ArcSwap::default(),
            started: OnceLock::new(),
            order: presence::Order::default(),
            settings,
        })
    }

    /// Where what is heard goes; none before the start.
    fn sink(&self) -> Option<&Arc<dyn Sink>> {
        self.started.get().map(|started| &started.sink)
    }

    async fn begin(self: Arc<Self>, sink: Arc<dyn Sink>, tasks: Tasks) -> anyhow::Result<()> {
        let dialer = Dialer::new(&self.settings, tasks.clone())?;
        drop(self.started.set(Started { sink, tasks }));
        let shard = Arc::new(Shard::default());
        self.map.store(Arc::new(Map::single(Arc::clone(&shard))));
        let Places::One(host) = &self.settings.places else {
            anyhow::bail!("one server only, so far");
        };
        let link = dialer
            .dial(host, None::<tokio::sync::broadcast::Sender<redis::PushInfo>>)
            .await?;
        shard.set_command(Some(link));
        Ok(())
    }

    async fn subscribe_and_open(&self, room: &RoomKey) -> Result<Opened, super::contract::Failed> {
        self.open(room).await
    }

    async fn unsubscribe(&self, _room: &RoomKey) {}
}

impl Backplane for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dense: true,
            atomic: true,
            history_age: true,
            lineage: true,
            fenced_presence: true,
        }
    }

    fn start<'a>(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        tasks: &'a Tasks,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> {
        Box::pin(self.begin(sink, tasks.clone()))
    }

    fn publish<'a>(
        &'a self,
        room: &'a RoomKey,
        drafts: &'a [Draft],
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>> {
        Box::pin(self.append(room, drafts, within))
    }

    fn attach<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Opened> {
        Box::pin(self.subscribe_and_open(room))
    }

    fn detach<'a>(&'a self, room: &'a RoomKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.unsubscribe(room))
    }

    fn range<'a>(&'a self, room: &'a RoomKey, after: &'a Position, limit: usize) -> Call<'a, Range> {
        Box::pin(self.read_after(room, after, limit))
    }

    fn before<'a>(&'a self, room: &'a RoomKey, seq: u64, limit: usize) -> Call<'a, Page> {
        Box::pin(self.read_before(room, seq, limit))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomKey]) -> Call<'a, Vec<Option<Head>>> {
        Box::pin(self.read_heads(rooms))
    }

    fn users<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Users> {
        Box::pin(self.read_users(room))
    }

    fn present<'a>(&'a self, incarnation: &'a Incarnation, changes: &'a [Change]) -> Call<'a, Presented> {
        Box::pin(self.move_users(incarnation, changes))
    }

    fn assert_held<'a>(&'a self, incarnation: &'a Incarnation, held: &'a [Change]) -> Call<'a, Presented> {
        Box::pin(self.move_users_to(incarnation, held))
    }

    fn renew<'a>(&'a self, incarnation: &'a Incarnation, begin: bool, lease: Duration) -> Call<'a, Renewal> {
        Box::pin(self.renew_lease(incarnation, begin, lease))
    }

    fn reap<'a>(&'a self, dead: &'a Incarnation) -> Call<'a, bool> {
        Box::pin(self.bury(dead))
    }

    fn resign<'a>(&'a self, incarnation: &'a Incarnation) -> Call<'a, ()> {
        Box::pin(self.give_back(incarnation))
    }

    fn tell<'a>(&'a self, control: &'a Control) -> Call<'a, ()> {
        Box::pin(self.tell_all(control))
    }

    fn revocations(&self) -> Call<'_, Vec<Revocation>> {
        Box::pin(self.read_revocations())
    }

    fn merge_revocations<'a>(&'a self, known: &'a [Revocation]) -> Call<'a, ()> {
        Box::pin(self.write_revocations(known))
    }

    fn put<'a>(&'a self, name: &'a str, value: &'a [u8], lifetime: Duration) -> Call<'a, bool> {
        Box::pin(self.put_once(name, value, lifetime))
    }

    fn take<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        Box::pin(self.take_once(name))
    }
}
