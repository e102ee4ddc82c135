//! The hub against a naive reference: random schedules of everything that members do, with inboxes drained and
//! replays read on at random points by shards that follow the rules of the real one.

mod outside;
mod reference;
mod shadows;
pub mod shards;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::config;
use crate::hub::room::{Joining, Paged, Paging, Said, Saying};
use crate::hub::{Hub, Joined, Position, Room, User};
use crate::protocol::client::{Page, Ref};
use crate::shard::inbox::{Command, Inbox};

use reference::{Kept, Reference};
use shards::{PieceSize, Shards};

const ROOMS: [&str; 2] = ["lobby", "attic"];
const USERS: usize = 3;
/// Two tabs per user.
const TABS: usize = 2 * USERS;
const SHARDS: usize = 2;
const KEY_WINDOW_MS: u64 = 500;

/// What may be said of the past when joining.
#[derive(Debug, Clone, Copy)]
enum Since {
    Nothing,
    /// Where the tab stands, or stood when it left.
    Own,
    /// So much before that.
    Earlier(u64),
    /// A seq that was never reached.
    Later,
    /// An epoch that never was.
    Foreign,
    /// An epoch that was, with any seq.
    Old(u64),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Join(usize, usize, Since),
    Leave(usize, usize),
    Say(usize, usize, Option<u8>, usize),
    List(usize, usize),
    History(usize, usize, Page, usize),
    /// The connection ends and comes back as another.
    Reconnect(usize),
    /// A shard empties its inbox.
    Drain(usize),
    /// The tab's outbox has emptied: the next piece of a replay.
    Refill(usize),
    Counts,
    Sweep,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let since = prop_oneof![
        3 => Just(Since::Nothing),
        5 => Just(Since::Own),
        4 => (1..9_u64).prop_map(Since::Earlier),
        1 => Just(Since::Later),
        1 => Just(Since::Foreign),
        1 => (0..9_u64).prop_map(Since::Old),
    ];
    let page = prop_oneof![
        Just(Page::Latest),
        prop_oneof![0..20_u64, Just(u64::MAX)].prop_map(Page::Before),
        prop_oneof![0..20_u64, Just(u64::MAX)].prop_map(Page::After),
    ];
    let (tab, room) = (0..TABS, prop_oneof![4 => Just(0_usize), 1 => Just(1)]);
    prop_oneof![
        8 => (tab.clone(), room.clone(), since).prop_map(|(tab, room, since)| Step::Join(tab, room, since)),
        3 => (tab.clone(), room.clone()).prop_map(|(tab, room)| Step::Leave(tab, room)),
        12 => (tab.clone(), room.clone(), prop::option::weighted(0.3, 0..3_u8), 0..120_usize)
            .prop_map(|(tab, room, key, bytes)| Step::Say(tab, room, key, bytes)),
        4 => (tab.clone(), room.clone()).prop_map(|(tab, room)| Step::List(tab, room)),
        2 => (tab.clone(), room, page, 1..8_usize).prop_map(|(tab, room, page, limit)| Step::History(tab, room, page, limit)),
        1 => tab.clone().prop_map(Step::Reconnect),
        7 => (0..SHARDS).prop_map(Step::Drain),
        7 => tab.prop_map(Step::Refill),
        1 => Just(Step::Counts),
        1 => Just(Step::Sweep),
        2 => prop_oneof![1..50_u64, 100..700_u64, 1_000..4_000_u64].prop_map(Step::Pass),
    ]
}

/// The bounds of one schedule.
#[derive(Debug, Clone, Copy)]
struct World {
    kept: Kept,
    users_shown: usize,
    members_max: usize,
    piece: PieceSize,
}

fn world() -> impl Strategy<Value = World> {
    let kept = (
        prop_oneof![Just(0_usize), 1..6_usize, Just(1_000)],
        prop_oneof![Just(600_usize), Just(1 << 20)],
        prop_oneof![Just(1_500_u64), Just(1 << 40)],
    );
    (
        kept,
        prop_oneof![1..3_usize, Just(100)],
        prop_oneof![3 => Just(0_usize), 1 => 1..5_usize],
        1..400_usize,
        1..4_usize,
    )
        .prop_map(
            |((messages, bytes, age_ms), users_shown, members_max, piece_bytes, piece_frames)| World {
                kept: Kept {
                    messages,
                    bytes,
                    age_ms,
                },
                users_shown,
                members_max,
                piece: PieceSize {
                    bytes: piece_bytes,
                    frames: piece_frames,
                },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn everybody_is_told_the_truth_whatever_happens_in_between(
        world in world(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut play = Play::new(world);
        for step in steps {
            play.step(step);
        }
        play.settle();
    }
}

/// Runs a schedule that once went wrong.
fn again(steps: &[Step]) {
    let mut play = Play::new(World {
        kept: Kept {
            messages: 5,
            bytes: 1 << 20,
            age_ms: 1_500,
        },
        users_shown: 100,
        members_max: 0,
        piece: PieceSize { bytes: 1, frames: 1 },
    });
    for step in steps {
        play.step(*step);
    }
    play.settle();
}

/// Tabs 0 and 1 are on shard 0 and 1; tab 0 has said three chats and comes back for all of them.
const RETURN: [Step; 8] = [
    Step::Join(0, 0, Since::Nothing),
    Step::Drain(0),
    Step::Say(0, 0, None, 0),
    Step::Say(0, 0, None, 0),
    Step::Say(0, 0, None, 0),
    Step::Join(0, 0, Since::Own),
    Step::Drain(0),
    Step::Refill(0),
];

#[test]
fn a_join_during_a_replay_says_whether_it_was_recovered() {
    for since in [Since::Own, Since::Foreign, Since::Later] {
        again(&[&RETURN[..], &[Step::Join(0, 0, since)]].concat());
    }
}

#[test]
fn a_list_waits_for_a_replay_that_overtook_it() {
    again(
        &[
            &RETURN[..],
            &[Step::List(0, 0), Step::Say(0, 0, None, 0)],
            &[Step::Refill(0); 4],
            &[Step::Drain(0), Step::Say(0, 0, None, 0)],
        ]
        .concat(),
    );
}

#[test]
fn a_list_that_is_overtaken_by_a_leave_does_not_lie() {
    again(
        &[
            &RETURN[..7],
            &[Step::List(0, 0), Step::Drain(0), Step::Leave(0, 0)],
            &[Step::Refill(0); 4],
        ]
        .concat(),
    );
}

#[test]
fn where_everything_was_forgotten_there_is_no_more() {
    let forgotten = [Step::Pass(2_000), Step::Sweep, Step::History(0, 0, Page::After(0), 1)];
    again(&[&RETURN[..], &forgotten].concat());
}

/// One tab, from its own side: what it knows and what it waits for.
pub(super) struct Tab {
    user: User,
    shard: usize,
    slot: u32,
    rooms: HashMap<&'static str, Arc<Room>>,
    views: HashMap<&'static str, View>,
    /// Where it stands or stood, also after leaving.
    places: HashMap<&'static str, (String, u64)>,
    /// Requests that have not been answered.
    asked: HashMap<u64, Asked>,
}

/// A request, and what its answer must be.
#[derive(Debug, Clone)]
enum Asked {
    Join {
        since: Option<(String, u64)>,
        recovered: Option<bool>,
        again: bool,
    },
    List,
}

/// A room as one tab sees it while it is in.
#[derive(Debug, Clone)]
struct View {
    epoch: String,
    seq: u64,
    /// By the first list, and by `join` and `left` alone since.
    users: HashSet<String>,
    /// What a client would show.
    count: usize,
}

struct Play {
    world: World,
    hub: Hub,
    shards: Shards,
    tabs: Vec<Tab>,
    reference: Reference,
    now_ms: u64,
    next_ref: u64,
    said: u64,
}

fn user(id: &str) -> User {
    User {
        id: id.into(),
        json: json!({"id": id}).to_string().into(),
    }
}

impl Play {
    fn new(world: World) -> Self {
        let mut config = config::default_config();
        config.history.messages = world.kept.messages;
        config.history.bytes = world.kept.bytes;
        config.history.age = Duration::from_millis(world.kept.age_ms);
        config.room.users_shown = world.users_shown;
        config.room.key_window = Duration::from_millis(KEY_WINDOW_MS);
        config.limits.room_members = world.members_max;
        let inboxes: Arc<[Arc<Inbox>]> = (0..SHARDS).map(|_| Arc::new(Inbox::default())).collect();
        let mut shards = Shards::new(Arc::clone(&inboxes), world.piece);
        let tabs = (0..TABS).map(|tab| {
            let shard = (tab / 2 + tab) % SHARDS;
            Tab {
                user: user(&format!("u{}", tab % USERS)),
                shard,
                slot: shards.register(shard, tab),
                rooms: HashMap::new(),
                views: HashMap::new(),
                places: HashMap::new(),
                asked: HashMap::new(),
            }
        });
        Self {
            world,
            hub: Hub::new(&config, inboxes, None),
            tabs: tabs.collect(),
            shards,
            reference: Reference::new(world.kept, KEY_WINDOW_MS),
            now_ms: 1_000_000,
            next_ref: 0,
            said: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(tab, room, since) => self.join(tab, ROOMS[room], since),
            Step::Leave(tab, room) => self.leave(tab, ROOMS[room]),
            Step::Say(tab, room, key, bytes) => self.say(tab, ROOMS[room], key, bytes),
            Step::List(tab, room) => self.list(tab, ROOMS[room]),
            Step::History(tab, room, page, limit) => self.history(tab, ROOMS[room], page, limit),
            Step::Reconnect(tab) => self.reconnect(tab),
            Step::Drain(shard) => {
                self.shards.drain(shard);
                self.hear();
            }
            Step::Refill(tab) => self.refill(tab),
            Step::Counts => self.hub.send_counts(self.now_ms),
            Step::Sweep => {
                block_on(self.hub.sweep(self.now_ms));
                self.reference.sweep(self.now_ms);
            }
            Step::Pass(ms) => self.now_ms += ms,
        }
    }

    fn reference_number(&mut self, tab: usize, asked: Asked) -> String {
        self.next_ref += 1;
        self.tabs[tab].asked.insert(self.next_ref, asked);
        self.next_ref.to_string()
    }

    fn join(&mut self, tab: usize, room: &'static str, since: Since) {
        let place = self.tabs[tab].places.get(room).cloned();
        let since = match (since, place) {
            (Since::Nothing, _) => None,
            (Since::Foreign, place) => Some(("nowhere".to_owned(), place.map_or(0, |place| place.1))),
            (Since::Old(seq), _) => self.reference.an_old_epoch(room).map(|epoch| (epoch, seq)),
            (_, None) => None,
            (Since::Own, Some(place)) => Some(place),
            (Since::Earlier(by), Some((epoch, seq))) => Some((epoch, seq.saturating_sub(by))),
            (Since::Later, Some((epoch, _))) => Some((epoch, u64::MAX)),
        };
        let again = self.tabs[tab].rooms.contains_key(room);
        let id = self.tabs[tab].user.id.to_string();
        let full = !again && self.world.members_max > 0 && self.reference.members(room) >= self.world.members_max;
        let recovered = since
            .as_ref()
            .map(|(epoch, seq)| self.reference.covers(room, epoch, *seq));
        let asked = Asked::Join {
            since: since.clone(),
            recovered,
            again,
        };
        let number = self.reference_number(tab, asked);
        let this = &self.tabs[tab];
        let joining = Joining {
            member: Shards::member(this.shard, this.slot),
            user: &this.user,
            since: since.as_ref().map(|(epoch, seq)| Position { epoch, seq: *seq }),
            reference: Ref::from_json(&number),
            again,
            sees: crate::hub::room::Sees::ALL,
            now_ms: self.now_ms,
        };
        let (entered, joined) = self.hub.join(room, &joining).expect("no limit on rooms");
        match joined {
            Joined::Full => {
                assert!(full, "there was a place in {room}");
                self.tabs[tab].asked.remove(&self.next_ref);
                return;
            }
            Joined::Gone | Joined::Later | Joined::Unavailable => panic!("the hub looks again, and asks nobody"),
            Joined::In { recovered: found, .. } => {
                assert!(!full, "{room} was full");
                assert_eq!(found, recovered, "since {since:?} in {room}");
            }
        }
        if !again {
            self.reference.enter(room, &id);
            self.tabs[tab].rooms.insert(room, Arc::clone(&entered));
        }
        self.learn_epoch(room, &entered);
    }

    fn page(&self, room: &Arc<Room>, page: Page, limit: usize) -> Value {
        let paging = Paging {
            member: Shards::member(0, 0),
            page,
            limit,
            reference: None,
            now_ms: self.now_ms,
        };
        match room.history(&paging) {
            Paged::Now(frame) => value(frame.payload()),
            other => panic!("{other:?}"),
        }
    }

    /// Tells the reference what the room calls its epoch; asking for history also forgets what is too old.
    fn learn_epoch(&mut self, name: &'static str, room: &Arc<Room>) {
        let page = self.page(room, Page::Latest, 1);
        self.reference.trim(name, self.now_ms);
        self.reference.epoch_is(name, text(&page["epoch"]));
    }

    fn leave(&mut self, tab: usize, name: &'static str) {
        let Some(room) = self.tabs[tab].rooms.remove(name) else {
            return;
        };
        let this = &self.tabs[tab];
        if room.leave(Shards::member(this.shard, this.slot), &this.user.id, false, self.now_ms) {
            self.hub.count_is_due(&room);
        }
        self.reference.leave(name, &this.user.id);
    }

    fn reconnect(&mut self, tab: usize) {
        for name in ROOMS {
            self.leave(tab, name);
        }
        let (shard, slot) = (self.tabs[tab].shard, self.tabs[tab].slot);
        self.shards.end(shard, slot);
        self.shards.inbox(shard).push(Command::Gone { slot });
        let shard = (shard + 1) % SHARDS;
        let slot = self.shards.register(shard, tab);
        let this = &mut self.tabs[tab];
        (this.shard, this.slot) = (shard, slot);
        // What was under way to the old connection is lost with it.
        this.views.clear();
        this.asked.clear();
    }

    fn say(&mut self, tab: usize, name: &'static str, key: Option<u8>, bytes: usize) {
        let Some(room) = self.tabs[tab].rooms.get(name).cloned() else {
            return;
        };
        self.said += 1;
        let content = json!([self.said, "x".repeat(bytes)]).to_string();
        let key = key.map(|key| key.to_string());
        let user = self.tabs[tab].user.clone();
        let said = room.say(&Saying {
            member: Shards::member(0, 0),
            reference: None,
            trace: None,
            user: &user,
            content: &content,
            key: key.as_deref(),
            now_ms: self.now_ms,
        });
        let due = self.reference.say(name, &user, key.as_deref(), &content, self.now_ms);
        match said {
            Said::New { epoch, seq, members } => {
                assert_eq!(due, (true, epoch.to_string(), seq), "{name}, key {key:?}");
                assert_eq!(members, self.reference.members(name));
            }
            Said::Again { epoch, seq } => assert_eq!(due, (false, epoch.to_string(), seq), "{name}, key {key:?}"),
            Said::Later | Said::Unavailable => panic!("the shards are not behind"),
        }
    }

    fn list(&mut self, tab: usize, name: &'static str) {
        let Some(room) = self.tabs[tab].rooms.get(name).cloned() else {
            return;
        };
        let number = self.reference_number(tab, Asked::List);
        let this = &self.tabs[tab];
        room.list(
            Shards::member(this.shard, this.slot),
            &this.user,
            Ref::from_json(&number),
            self.now_ms,
        );
    }

    fn history(&mut self, tab: usize, name: &'static str, page: Page, limit: usize) {
        let Some(room) = self.tabs[tab].rooms.get(name).cloned() else {
            return;
        };
        let reply = self.page(&room, page, limit);
        self.reference.trim(name, self.now_ms);
        let (seqs, more) = self.reference.page(name, page, limit);
        let found: Vec<u64> = reply["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .map(|chat| number(&chat["seq"]))
            .collect();
        assert_eq!(found, seqs, "{page:?} of {limit}");
        assert_eq!(reply["more"], more, "{page:?} of {limit}: {reply}");
        assert_eq!(reply["first"], self.reference.first(name));
        for chat in reply["messages"].as_array().expect("messages") {
            self.reference.check_chat(text(&reply["epoch"]), chat);
        }
    }

    fn refill(&mut self, tab: usize) {
        let (shard, slot) = (self.tabs[tab].shard, self.tabs[tab].slot);
        self.shards.refill(shard, slot);
        self.hear();
    }

    /// Tabs read what has reached them.
    fn hear(&mut self) {
        for (tab, frame, held) in self.shards.delivered() {
            let message = value(frame.payload());
            match text(&message["type"]) {
                "list" => self.on_list(tab, &message, held),
                "chat" => self.on_chat(tab, &message),
                "reset" => self.on_reset(tab, &message),
                "join" | "left" => self.on_presence(tab, &message),
                "count" => {
                    if let Some(view) = self.tabs[tab].views.get_mut(text(&message["room"])) {
                        view.count = usize::try_from(number(&message["count"])).expect("few");
                    }
                }
                "error" => {
                    assert_eq!(message["code"], "not_joined", "{message}");
                    let asked = self.tabs[tab].asked.remove(&number(&message["ref"]));
                    assert!(asked.is_some(), "nobody asked: {message}");
                }
                other => panic!("nobody says {other}"),
            }
        }
        // Who has left hears nothing more of the room, once its shard knows.
        for tab in &mut self.tabs {
            let shards = &self.shards;
            tab.views.retain(|name, _| shards.is_in(tab.shard, tab.slot, name));
        }
    }

    fn on_list(&mut self, tab: usize, list: &Value, held: bool) {
        let name = room_name(list);
        let asked = self.tabs[tab].asked.remove(&number(&list["ref"]));
        let asked = asked.unwrap_or_else(|| panic!("nobody asked, or twice: {list}"));
        let (epoch, seq) = (text(&list["epoch"]).to_owned(), number(&list["seq"]));
        let ids: HashSet<String> = list["users"]
            .as_array()
            .expect("users")
            .iter()
            .map(|user| text(&user["id"]).to_owned())
            .collect();
        let count = usize::try_from(number(&list["count"])).expect("few");
        assert_eq!(ids.len(), count.min(self.world.users_shown), "{list}");
        assert!(ids.contains(&*self.tabs[tab].user.id), "oneself among them: {list}");
        let (recovered, since, again) = match &asked {
            Asked::Join {
                since,
                recovered,
                again,
            } => (*recovered, since.clone(), *again),
            Asked::List => (None, None, true),
        };
        assert_eq!(list["recovered"].as_bool(), recovered, "{asked:?} {list}");
        let all_shown = self.world.users_shown >= USERS;
        match self.tabs[tab].views.get_mut(name) {
            Some(view) if again => {
                view.count = count;
                if let (Some(true), Some(since)) = (recovered, since) {
                    assert!(!held, "a replay begins at once: {list}");
                    assert!(since.1 <= seq);
                    (view.epoch, view.seq) = since;
                } else {
                    // A list says where one stands: neither before what was delivered, nor behind what was not.
                    assert_eq!((&view.epoch, view.seq), (&epoch, seq), "{asked:?} {list}");
                }
                if all_shown && !held {
                    assert_eq!(view.users, ids, "{list}");
                }
            }
            _ => {
                assert!(!again, "{asked:?} in a room that one is not in: {list}");
                let (epoch, seq) = since.filter(|_| recovered == Some(true)).unwrap_or((epoch, seq));
                let view = View {
                    epoch,
                    seq,
                    users: ids,
                    count,
                };
                self.tabs[tab].views.insert(name, view);
            }
        }
        self.stands(tab, name);
    }

    fn on_chat(&mut self, tab: usize, chat: &Value) {
        let name = room_name(chat);
        let view = self.tabs[tab]
            .views
            .get_mut(name)
            .unwrap_or_else(|| panic!("not in {name}: {chat}"));
        assert_eq!(
            number(&chat["seq"]),
            view.seq + 1,
            "a hole or a double in {name}: {chat}"
        );
        view.seq += 1;
        let epoch = view.epoch.clone();
        self.reference.check_chat(&epoch, chat);
        self.stands(tab, name);
    }

    fn on_reset(&mut self, tab: usize, reset: &Value) {
        let name = room_name(reset);
        let view = self.tabs[tab]
            .views
            .get_mut(name)
            .unwrap_or_else(|| panic!("not in {name}: {reset}"));
        assert_eq!(reset["reason"], "trimmed");
        assert_eq!(reset["epoch"], view.epoch.as_str());
        assert!(number(&reset["seq"]) > view.seq, "{reset}");
        assert_eq!(
            number(&reset["seq"]) + 1,
            self.reference.first_of(text(&reset["epoch"])),
            "what is not kept, and nothing else"
        );
        view.seq = number(&reset["seq"]);
        self.stands(tab, name);
    }

    fn on_presence(&mut self, tab: usize, event: &Value) {
        let name = room_name(event);
        let id = text(&event["user"]["id"]).to_owned();
        assert_ne!(id, *self.tabs[tab].user.id, "never for oneself");
        let all_shown = self.world.users_shown >= USERS;
        let view = self.tabs[tab]
            .views
            .get_mut(name)
            .unwrap_or_else(|| panic!("not in {name}: {event}"));
        if event["type"] == "join" {
            assert!(view.users.insert(id) || !all_shown, "came twice: {event}");
        } else {
            assert!(
                view.users.remove(&id) || !all_shown,
                "left without having come: {event}"
            );
        }
    }

    fn stands(&mut self, tab: usize, name: &'static str) {
        let view = &self.tabs[tab].views[name];
        let place = (view.epoch.clone(), view.seq);
        self.tabs[tab].places.insert(name, place);
    }

    /// Everything under way arrives, and then everybody knows everything.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.now_ms += 1_000;
            self.hub.send_counts(self.now_ms);
            for shard in 0..SHARDS {
                self.shards.drain(shard);
            }
            for tab in 0..TABS {
                self.shards.refill(self.tabs[tab].shard, self.tabs[tab].slot);
            }
            self.hear();
            if self.shards.is_quiet() {
                break;
            }
        }
        assert!(self.shards.is_quiet(), "a replay never ends");
        for tab in &self.tabs {
            assert!(tab.asked.is_empty(), "never answered: {:?}", tab.asked);
            assert_eq!(tab.views.len(), tab.rooms.len());
            for (name, view) in &tab.views {
                assert_eq!((view.epoch.as_str(), view.seq), self.reference.head(name), "{name}");
                let users = self.reference.users(name);
                if self.world.users_shown >= USERS {
                    assert_eq!(view.users, users, "{name}");
                } else if users.len() > self.world.users_shown {
                    assert_eq!(view.count, users.len(), "{name}");
                }
            }
        }
        let totals = self.hub.totals();
        assert_eq!(
            totals.users,
            ROOMS.iter().map(|room| self.reference.users(room).len()).sum::<usize>()
        );
        assert_eq!(
            totals.messages,
            ROOMS.iter().map(|room| self.reference.kept(room)).sum::<usize>()
        );
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future);
}

fn value(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).expect("the hub says JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn room_name(message: &Value) -> &'static str {
    ROOMS
        .into_iter()
        .find(|name| message["room"] == *name)
        .expect("one of the rooms")
}
