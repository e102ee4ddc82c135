//! Asks the log what rooms want to know, one question per room at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::backplane::contract::{Failed, PAGE_ENTRIES_MAX, RoomKey};
use crate::backplane::driver::Driver;
use crate::hub::Room;
use crate::hub::room::shared::Ask;
use crate::runtime::now_ms;

/// Rooms that are asked about at the same time.
const ROOMS_MAX: usize = 32;

/// Tries of one question before whoever waits for it is told that there is no answer.
const TRIES: u32 = 4;

/// Before the second try; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// While a shard is too far behind to be told more.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Answers to one room before others have their turn.
const ANSWERS_PER_TURN: usize = 16;

/// Answers in a row that brought a room no further, before it is left to the next audit.
const IDLE_ANSWERS_MAX: u32 = 8;

/// Runs until the task is dropped.
pub(super) async fn run(driver: Arc<Driver>) {
    let mut waiting = VecDeque::new();
    let mut running = FuturesUnordered::new();
    loop {
        // Nothing is lost: rooms stay in the errands until they are taken, and then in `waiting` or `running`.
        tokio::select! {
            rooms = driver.errands.ask.take() => waiting.extend(rooms),
            Some(left) = running.next() => waiting.extend(left),
        }
        while running.len() < ROOMS_MAX
            && let Some(room) = waiting.pop_front()
        {
            running.push(answer(&driver, room));
        }
    }
}

/// Gives the room back if it has more to ask and others wait for their turn.
async fn answer(driver: &Driver, room: Arc<Room>) -> Option<Arc<Room>> {
    let key = room.key();
    let (mut failures, mut idle) = (0, 0);
    for _ in 0..ANSWERS_PER_TURN {
        let ask = room.next_ask()?;
        if !driver.errands.is_up() {
            room.ask_failed();
            return None;
        }
        match put(driver, &room, &key, &ask).await {
            Ok(Progress::Gone) => return None,
            Ok(Progress::Some) => (failures, idle) = (0, 0),
            Ok(Progress::None) => {
                idle += 1;
                if idle == IDLE_ANSWERS_MAX {
                    tracing::warn!("the log of a room contradicts itself; it is looked at again with the next audit");
                    room.ask_failed();
                    return None;
                }
            }
            Err(error) => {
                failures += 1;
                if failures == TRIES || !driver.errands.is_up() {
                    tracing::debug!(%error, ?ask, "a room was not answered");
                    room.ask_failed();
                    return None;
                }
                tokio::time::sleep(RETRY_PAUSE * (1 << (failures - 1))).await;
            }
        }
    }
    Some(room)
}

enum Progress {
    /// The room has moved on.
    Some,
    /// The answer changed nothing that would keep it from asking the same again.
    None,
    /// The room is over.
    Gone,
}

/// Puts one question, and brings the answer to the room.
async fn put(driver: &Driver, room: &Arc<Room>, key: &RoomKey, ask: &Ask) -> Result<Progress, Failed> {
    let backplane = &driver.backplane;
    match ask {
        Ask::Attach => {
            let opened = backplane.attach(key).await?;
            if room.on_attached(opened, now_ms()) {
                driver.hub.count_is_due(room);
            }
        }
        Ask::Repair(at) => {
            let range = backplane.range(key, at, PAGE_ENTRIES_MAX).await?;
            while !room.can_hand_on() {
                tokio::time::sleep(FULL_PAUSE).await;
            }
            let repaired = room.on_range(range, now_ms());
            driver.repaired(repaired);
            return Ok(if repaired.is_some() {
                Progress::Some
            } else {
                Progress::None
            });
        }
        Ask::Older(seq) => {
            let page = backplane.before(key, *seq, PAGE_ENTRIES_MAX).await?;
            let further = room.on_older(page, now_ms());
            return Ok(if further { Progress::Some } else { Progress::None });
        }
        Ask::Users => {
            let users = backplane.users(key).await?;
            if room.on_users(users, now_ms()) {
                driver.hub.count_is_due(room);
            }
        }
        Ask::Detach => {
            backplane.detach(key).await;
            if room.on_detached() {
                driver.hub.forget(room);
                return Ok(Progress::Gone);
            }
        }
    }
    Ok(Progress::Some)
}
