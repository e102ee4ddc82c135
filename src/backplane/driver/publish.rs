//! Carries chats to the backplane: many rooms at once, one call per room, so that every sender's order holds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::backplane::driver::Driver;
use crate::hub::Room;
use crate::runtime::now_ms;

/// Between two tries of a room whose chats were refused for the moment.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Runs until the task is dropped.
pub(super) async fn run(driver: Arc<Driver>) {
    let mut running = FuturesUnordered::new();
    loop {
        // Nothing is lost: rooms stay in the errands until they are taken, and running ones in `running`.
        tokio::select! {
            rooms = driver.errands.publish.take() => {
                running.extend(rooms.into_iter().map(|room| publish(&driver, room)));
            }
            Some(()) = running.next() => {}
        }
    }
}

async fn publish(driver: &Driver, room: Arc<Room>) {
    let key = room.key();
    loop {
        if driver.errands.do_joins_go_first() {
            driver.errands.joined_first(&key.name, room.entered()).await;
        }
        let batch = room.next_batch(now_ms());
        if batch.is_empty() {
            if room.end_if_only_passed() {
                driver.hub.forget(&room);
            }
            return;
        }
        // Who gives up must not be heard later: neither a chat that is answered meanwhile, nor a call that is not waited for.
        let within = room.patience(now_ms()).min(driver.errands.bounds.call_timeout);
        let outcomes = driver.backplane.publish(&key, &batch, within).await;
        debug_assert_eq!(batch.len(), outcomes.len(), "one outcome per draft");
        if room.published(batch, &outcomes, now_ms()) {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
