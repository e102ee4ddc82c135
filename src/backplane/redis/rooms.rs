//! Attaches to rooms: subscribed and confirmed first, read afterwards.

use super::super::contract::{Failed, Opened, Refusal, RoomKey};
use super::Redis;
use super::subscriptions::Subscriptions;
use super::topology::Place;

/// Gives the wish up unless it was fulfilled, also when the caller went away.
struct Wish<'a> {
    subscriptions: &'a Subscriptions,
    room: &'a RoomKey,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.subscriptions.give_up(self.room);
    }
}

impl Redis {
    /// [`super::Backplane::attach`]
    pub(super) async fn subscribe_and_open(&self, room: &RoomKey) -> Result<Opened, Failed> {
        self.subscribe(room).await?;
        self.open(room).await
    }

    async fn subscribe(&self, room: &RoomKey) -> Result<(), Failed> {
        let shard = self.shard(Place::Partition(room.partition)).ok_or(Refusal::Away)?;
        let wish = Wish {
            subscriptions: &self.subscriptions,
            room,
        };
        let Some(confirmed) = self.subscriptions.want(room, shard.subscriber()) else {
            return Ok(());
        };
        // Asked after the wish was noted: a link that is being made takes up what is noted by then, and has a number.
        if shard.subscriber() != 0 {
            shard.queue.push(room.clone());
        }
        let answer = tokio::time::timeout(self.settings.call_timeout, confirmed).await;
        drop(wish);
        // The subscription alone is harmless: nothing was changed that matters.
        answer.map_or(Err(Refusal::Away.into()), |answer| {
            answer.unwrap_or(Err(Refusal::Away.into()))
        })
    }

    /// [`super::Backplane::detach`]
    pub(super) fn unsubscribe(&self, room: &RoomKey) {
        let shard = self.shard(Place::Partition(room.partition));
        let link = shard.as_ref().map_or(0, |shard| shard.subscriber());
        if self.subscriptions.leave(room, link)
            && let Some(shard) = shard
        {
            shard.queue.push(room.clone());
        }
    }
}
