//! A node as an engine sees it: a handle to the engine, and everything that it is told.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conclave::backplane::contract::{
    Backplane, Change, Control, Draft, Entry, Found, Incarnation, Outcome, Position, PresenceEvent, Presented, RoomKey,
    Scope, Sink,
};
use conclave::backplane::envelope;
use conclave::runtime::Tasks;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::harness::within;

/// Longer than any busy machine takes.
pub const LONG: Duration = Duration::from_secs(20);

/// A node. Calls of the contract go to its engine.
pub struct Peer {
    pub plane: Arc<dyn Backplane>,
    pub heard: Arc<Heard>,
    tasks: Tasks,
}

impl Deref for Peer {
    type Target = dyn Backplane;

    fn deref(&self) -> &Self::Target {
        &*self.plane
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks.stop_services();
    }
}

impl Peer {
    /// Starts it and waits until it says that it reaches its engine, and that revocations are to be loaded: from then on
    /// it hears what is told.
    pub async fn start(plane: Arc<dyn Backplane>) -> Self {
        let peer = Self::begin(plane).await;
        peer.heard
            .until("a link", |log| (log.up && log.control_suspects > 0).then_some(()))
            .await;
        peer
    }

    /// Starts it, wherever the engine may be.
    pub async fn begin(plane: Arc<dyn Backplane>) -> Self {
        let (heard, tasks) = (Arc::new(Heard::default()), Tasks::default());
        let sink: Arc<dyn Sink> = Arc::clone(&heard) as _;
        within("the start of a node", Arc::clone(&plane).start(sink, &tasks))
            .await
            .expect("the engine can be worked with");
        Self { plane, heard, tasks }
    }

    /// One outcome per draft.
    pub async fn publish_all(&self, room: &RoomKey, drafts: &[Draft]) -> Vec<Outcome> {
        let outcomes = within("outcomes", self.publish(room, drafts, LONG)).await;
        assert_eq!(outcomes.len(), drafts.len());
        outcomes
    }

    pub async fn publish_one(&self, room: &RoomKey, draft: Draft) -> Outcome {
        self.publish_all(room, &[draft]).await.remove(0)
    }

    /// Says something without a key; where it came to stand.
    pub async fn say(&self, room: &RoomKey, content: &str) -> Position {
        match self.publish_one(room, draft("ann", content)).await {
            Outcome::New(position) => position,
            other => panic!("{content}: {other:?}"),
        }
    }

    /// Everything after a position that its log must still have.
    pub async fn all_after(&self, room: &RoomKey, after: &Position) -> Vec<Entry> {
        let (mut at, mut all) = (after.clone(), Vec::new());
        loop {
            let range = self.range(room, &at, 50).await.expect("an answer");
            let Found::Entries(entries) = range.found else {
                panic!("after {at:?}: {:?}", range.found);
            };
            assert!(entries.len() <= 50);
            let Some(last) = entries.last() else {
                return all;
            };
            at = last.position.clone();
            all.extend(entries);
        }
    }

    /// Changes by an incarnation that is not buried.
    pub async fn moves(&self, incarnation: &Incarnation, changes: &[Change]) {
        let presented = self.present(incarnation, changes).await.expect("an answer");
        assert_eq!(presented, Presented::Done);
    }

    /// Names of the users in a room, in their order.
    pub async fn names(&self, room: &RoomKey) -> Vec<String> {
        let users = self.users(room).await.expect("an answer").users;
        let mut names: Vec<_> = users.iter().map(|(user, _)| user.to_string()).collect();
        names.sort();
        names
    }
}

/// Everything that a node was told.
#[derive(Default)]
pub struct Log {
    pub messages: BTreeMap<String, Vec<Entry>>,
    pub presence: BTreeMap<String, Vec<PresenceEvent>>,
    pub control: Vec<Control>,
    pub control_suspects: usize,
    /// `all`, `partitions` or `room:…`
    pub suspects: Vec<String>,
    pub up: bool,
}

impl Log {
    /// Messages of a room by their place; repeats fold into one, and differ never.
    pub fn distinct(&self, room: &RoomKey) -> Vec<Entry> {
        let mut distinct: BTreeMap<(u64, Arc<str>), Entry> = BTreeMap::new();
        for entry in self.messages.get(&*room.name).into_iter().flatten() {
            let place = (entry.position.seq, Arc::clone(&entry.position.epoch));
            let first = distinct.entry(place).or_insert_with(|| entry.clone());
            assert_eq!(first, entry, "one place, one message");
        }
        distinct.into_values().collect()
    }

    /// Presence of a room in the order of versions, without repeats.
    pub fn transitions(&self, room: &RoomKey) -> Vec<PresenceEvent> {
        let mut by_version = BTreeMap::new();
        for event in self.presence.get(&*room.name).into_iter().flatten() {
            by_version.insert(event.version, event.clone());
        }
        by_version.into_values().collect()
    }

    /// The same as words: `+ann`, `-ann`.
    pub fn came_and_went(&self, room: &RoomKey) -> Vec<String> {
        let events = self.transitions(room).into_iter();
        events
            .map(|event| format!("{}{}", if event.joined { '+' } else { '-' }, event.user))
            .collect()
    }
}

/// The sink of a [`Peer`].
pub struct Heard {
    log: Mutex<Log>,
    changed: watch::Sender<u64>,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            log: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Heard {
    pub fn read<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.log.lock())
    }

    /// Waits until `found` finds something in what was told.
    pub async fn until<T>(&self, what: &str, found: impl Fn(&Log) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        within(what, async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.read(&found) {
                    return found;
                }
                changed.changed().await.expect("the sender is ours");
            }
        })
        .await
    }

    /// Waits for the message at a place; what came before it in this room has come as well, if it comes at all.
    pub async fn message_at(&self, room: &RoomKey, place: &Position) -> Entry {
        self.until(&format!("{place:?} in {}", room.name), |log| {
            let entries = log.messages.get(&*room.name)?;
            entries.iter().find(|entry| entry.position == *place).cloned()
        })
        .await
    }

    /// Waits until these users came and went, in this order, and nobody else before the last of them.
    pub async fn presence_is(&self, room: &RoomKey, wanted: &[&str]) {
        self.until(&format!("{wanted:?} in {}", room.name), |log| {
            let is = log.came_and_went(room);
            assert!(is.len() <= wanted.len(), "{is:?} is more than {wanted:?}");
            (is == wanted).then_some(())
        })
        .await;
    }

    fn change(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.log.lock());
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Sink for Heard {
    fn message(&self, room: &str, entry: Entry) {
        self.change(|log| log.messages.entry(room.to_owned()).or_default().push(entry));
    }

    fn presence(&self, room: &str, event: PresenceEvent) {
        self.change(|log| log.presence.entry(room.to_owned()).or_default().push(event));
    }

    fn control(&self, control: Control) {
        self.change(|log| log.control.push(control));
    }

    fn control_suspect(&self) {
        self.change(|log| log.control_suspects += 1);
    }

    fn suspect(&self, scope: Scope<'_>) {
        let scope = match scope {
            Scope::All => "all".to_owned(),
            Scope::Partitions(_) => "partitions".to_owned(),
            Scope::Room(room) => format!("room:{room}"),
        };
        self.change(|log| log.suspects.push(scope));
    }

    fn up(&self, up: bool) {
        self.change(|log| log.up = up);
    }

    fn unready(&self, _: bool) {}
}

pub fn room(name: &str) -> RoomKey {
    RoomKey::new(name.into())
}

/// Another room that comes the same way: what is heard of it came after what was said before in the other one.
pub fn neighbour(of: &RoomKey) -> RoomKey {
    (0..)
        .map(|at| room(&format!("neighbour {at}")))
        .find(|room| room.partition == of.partition)
        .expect("partitions are few")
}

/// A message that was never said before, as rooms seal it.
pub fn draft(user: &str, content: &str) -> Draft {
    Draft {
        user: user.into(),
        key: None,
        envelope: sealed(user, content),
    }
}

pub fn keyed(user: &str, key: &str, content: &str) -> Draft {
    Draft {
        key: Some(key.into()),
        ..draft(user, content)
    }
}

pub fn sealed(user: &str, content: &str) -> Bytes {
    let from = serde_json::json!({"id": user}).to_string();
    envelope::seal(&from, &serde_json::Value::from(content).to_string(), None)
}

/// What was said in an entry made by [`draft`].
pub fn said(entry: &Entry) -> String {
    let envelope = envelope::Envelope::parse(&entry.envelope).expect("an envelope");
    serde_json::from_str(envelope.content.get()).expect("text")
}

/// An incarnation that was never used before.
pub fn life() -> Incarnation {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("life-{}-{number}", std::process::id()).into()
}

pub fn enters(room: &RoomKey, user: &str) -> Change {
    Change {
        room: room.clone(),
        user: user.into(),
        json: user_json(user),
        enters: true,
    }
}

pub fn leaves(room: &RoomKey, user: &str) -> Change {
    Change {
        enters: false,
        ..enters(room, user)
    }
}

pub fn user_json(user: &str) -> Arc<str> {
    serde_json::json!({"id": user, "name": format!("{user} the \"ü\"")})
        .to_string()
        .into()
}

/// Asks again, ten times a second, until the answer is as wanted.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    within(what, async {
        loop {
            pace.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    })
    .await
}
