//! Compares where attached rooms stand with where their logs are: all of them now and then, and at once those that may
//! have missed something. Finds the lost last message of a room, which no later one can give away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::backplane::contract::{Failed, Head, PARTITIONS, Position, RoomKey, Scope};
use crate::backplane::driver::Driver;
use crate::hub::Room;

/// Rooms asked about in one call.
const ROOMS_PER_CALL: usize = 512;

/// A wake-up that is not here after so long is lost.
const WAKE_UP_LATE: Duration = Duration::from_millis(500);

/// After an audit that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Single rooms under suspicion; with more, all are.
const ROOMS_MAX: usize = 1_024;

/// Rooms that must be compared soon.
#[derive(Debug, Default)]
pub struct Suspects {
    pending: Mutex<Suspected>,
    noticed: Notify,
}

#[derive(Debug, Default, Clone)]
struct Suspected {
    all: bool,
    /// A bit per partition.
    partitions: Option<Box<[bool]>>,
    rooms: Vec<Arc<str>>,
}

impl Suspects {
    pub fn add(&self, scope: Scope<'_>) {
        let mut pending = self.pending.lock();
        match scope {
            Scope::All => pending.all = true,
            Scope::Partitions(set) => {
                let known = pending
                    .partitions
                    .get_or_insert_with(|| vec![false; usize::from(PARTITIONS)].into());
                for (partition, known) in (0..PARTITIONS).zip(known.iter_mut()) {
                    *known |= set.contains(partition);
                }
            }
            Scope::Room(_) if pending.rooms.len() >= ROOMS_MAX => pending.all = true,
            Scope::Room(room) => pending.rooms.push(room.into()),
        }
        drop(pending);
        self.noticed.notify_one();
    }

    fn take(&self) -> Suspected {
        std::mem::take(&mut *self.pending.lock())
    }
}

impl Suspected {
    fn contains(&self, room: &RoomKey) -> bool {
        let in_partition = |partitions: &[bool]| partitions[usize::from(room.partition)];
        self.all || self.partitions.as_deref().is_some_and(in_partition) || self.rooms.contains(&room.name)
    }
}

/// Runs until the task is dropped.
pub(super) async fn run(driver: Arc<Driver>) {
    let mut ticks = tokio::time::interval(driver.audit_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        // Nothing is lost: suspects wait where they are.
        let patient = tokio::select! {
            () = driver.suspects.noticed.notified() => false,
            _ = ticks.tick() => true,
        };
        let suspected = if patient {
            Suspected {
                all: true,
                ..Suspected::default()
            }
        } else {
            driver.suspects.take()
        };
        let started = Instant::now();
        let audited = driver.audit(&suspected, patient).await;
        driver.audited(audited.as_ref().copied(), started.elapsed());
        if let Err(error) = audited {
            tracing::debug!(%error, "an audit failed");
            tokio::time::sleep(RETRY_PAUSE).await;
            if !patient && driver.errands.is_up() {
                driver.suspects.add(Scope::All);
            }
        }
    }
}

/// A room whose position differed from its log's.
struct Differed {
    room: Arc<Room>,
    key: RoomKey,
    at: Position,
    head: Option<Head>,
}

impl Driver {
    /// Compares the rooms that are suspected. Says how many had missed something.
    async fn audit(&self, suspected: &Suspected, patient: bool) -> Result<usize, Failed> {
        let mut rooms = Vec::new();
        self.hub.visit_all(|room| {
            let key = room.key();
            if !suspected.contains(&key) {
                return;
            }
            match room.at() {
                Some(at) => rooms.push((Arc::clone(room), key, at)),
                // An attach that failed is tried again.
                None => room.on_suspect(),
            }
        });
        let mut differed = Vec::new();
        if suspected.all {
            let attached = rooms.iter().filter(|(room, ..)| !room.is_shadow()).count();
            self.errands.metrics.backplane().attached_rooms(attached);
        }
        // By partition, so that one that cannot answer costs few others theirs.
        rooms.sort_by_key(|(_, key, _)| key.partition);
        let mut failed = Ok(());
        for chunk in rooms.chunks(ROOMS_PER_CALL) {
            let keys: Vec<RoomKey> = chunk.iter().map(|(_, key, _)| key.clone()).collect();
            let heads = match self.backplane.heads(&keys).await {
                Ok(heads) => heads,
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            for ((room, key, at), head) in chunk.iter().zip(heads) {
                if !room.is_at(head.as_ref()) {
                    differed.push(Differed {
                        room: Arc::clone(room),
                        key: key.clone(),
                        at: at.clone(),
                        head,
                    });
                }
            }
        }
        let behind = if patient {
            self.look_again(differed).await
        } else {
            for differed in &differed {
                differed.room.on_suspect();
            }
            differed.len()
        };
        failed.map(|()| behind)
    }

    /// A wake-up may have been on its way: only what is still missing after a while is lost.
    async fn look_again(&self, differed: Vec<Differed>) -> usize {
        if differed.is_empty() {
            return 0;
        }
        tokio::time::sleep(WAKE_UP_LATE).await;
        let mut behind = 0;
        for chunk in differed.chunks(ROOMS_PER_CALL) {
            let keys: Vec<RoomKey> = chunk.iter().map(|differed| differed.key.clone()).collect();
            let Ok(heads) = self.backplane.heads(&keys).await else {
                // Better asked in vain than not at all.
                for differed in chunk {
                    differed.room.on_suspect();
                }
                continue;
            };
            for (then, now) in chunk.iter().zip(heads) {
                let passed = then.head.as_ref().is_some_and(|head| then.room.has_passed(head));
                // A head below where the room stood: the log was rewound without a word.
                let rewound = now
                    .as_ref()
                    .is_none_or(|now| now.position.epoch == then.at.epoch && now.position.seq < then.at.seq);
                // Nobody came or went meanwhile, and yet the room has it otherwise.
                let presence = |head: &Option<Head>| head.as_ref().map(|head| head.presence);
                let strayed =
                    presence(&then.head) == presence(&now) && presence(&now) != Some(then.room.users_version());
                if !passed || rewound || strayed {
                    then.room.on_suspect();
                    behind += 1;
                }
            }
        }
        behind
    }
}
