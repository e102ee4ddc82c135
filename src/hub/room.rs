//! One room: its order, its history, who is in it, and which shards must hear of it.
//!
//! Everything happens under one lock that is held for a few hundred nanoseconds: number, append, hand one
//! command to each shard that has members. Inboxes are FIFO and fed under the lock, so every member on every
//! shard sees one order (README, How it is built).

mod asks;
mod outside;
pub mod shared;
mod told;

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::backplane::contract::Position as Place;
use crate::backplane::lineage::{Lineage, Verdict};
use crate::backplane::memory::keys::Keys;
use crate::config::classes::Class;
use crate::config::{self, Who};
use crate::hub::errands::Errands;
use crate::hub::history::{History, Kept};
use crate::hub::post::POST_ID;
use crate::hub::presence::Presence;
use crate::hub::{MemberId, User};
use crate::limits::{SHADOW_HISTORY_AGE, SHADOW_HISTORY_BYTES, SHADOW_HISTORY_MESSAGES};
use crate::protocol;
use crate::protocol::client::{Page, Ref};
use crate::protocol::server::{self, ResetReason};
use crate::shard::inbox::{Asked, Command, From, Inbox};
use crate::telemetry::taps::Taps;
use crate::websocket::encoded::Frame;

pub use asks::{
    Asker, Cursor, Joined, Joining, Paged, Paging, Pending, People, PieceLimits, Read, Replay, Said, Saying, Sees,
    Spoken, Words,
};
use shared::Shared;

/// Bytes of chats in one `history` reply; a page that would be longer ends early and says `more`. Half of the
/// default outbox, so that asking for history does not make a slow reader of anybody.
pub const HISTORY_REPLY_BYTES: usize = 128 * 1024;

/// What the counts of one room may cost: at most one a second, and in a room of more members than this, one per
/// so many seconds as it has times this many.
pub const COUNT_DELIVERIES_PER_SECOND: u64 = 2_000;

/// Bytes by which a frame may be longer than the log's entry: the room's name and the names of the fields.
const FRAME_BYTES_MORE: usize = 6 * crate::limits::ROOM_BYTES_MAX + 64;

/// What the rooms of one class are told by the configuration.
#[derive(Debug)]
pub struct Rules {
    pub class: Arc<Class>,
    /// What the class says of history; of rooms that only probes are in, less.
    pub kept: Kept,
    /// How long a chat may wait for more on its way out; whole milliseconds.
    pub flush_window_ms: u32,
    pub node: Arc<NodeRules>,
}

/// What is the same for rooms of all classes.
#[derive(Debug)]
pub struct NodeRules {
    /// Bytes that all rooms of this node may keep together.
    pub bytes_max: usize,
    /// Bytes that they do keep, to within [`REPORT_BYTES`] per room.
    pub bytes: AtomicI64,
    /// Where rooms ask the backplane; none with the memory backplane, whose rooms number by themselves.
    pub errands: Option<Arc<Errands>>,
    /// Who looks on.
    pub taps: Arc<Taps>,
}

/// A room tells the node what it keeps when that has changed by so much: a number that all cores share is not
/// touched for every message.
const REPORT_BYTES: usize = 64 * 1024;

impl NodeRules {
    #[must_use]
    pub fn new(config: &config::Config, errands: Option<Arc<Errands>>) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: config.history.node_bytes,
            bytes: AtomicI64::new(0),
            errands,
            taps: Arc::default(),
        })
    }

    /// Bytes that all rooms keep beyond what they may.
    #[must_use]
    pub fn bytes_over(&self) -> usize {
        let kept = usize::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0);
        kept.saturating_sub(self.bytes_max)
    }
}

impl Rules {
    #[must_use]
    pub fn new(class: &Arc<Class>, node: &Arc<NodeRules>) -> Self {
        // The log counts its own entries; the copy of it, whose frames name the room, must not be the shorter one.
        let shared_bytes = (node.errands.as_ref()).map_or(0, |_| class.history_messages * FRAME_BYTES_MORE);
        Self {
            class: Arc::clone(class),
            kept: Kept {
                messages: class.history_messages,
                bytes: class.history_bytes + shared_bytes,
                age: class.history_age,
            },
            flush_window_ms: u32::try_from(class.flush_window.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX),
            node: Arc::clone(node),
        }
    }

    /// Of rooms that only probes are in: they keep little, and not for long.
    #[must_use]
    pub fn of_shadows(class: &Arc<Class>, node: &Arc<NodeRules>) -> Self {
        let rules = Self::new(class, node);
        let bytes_max = SHADOW_HISTORY_BYTES + SHADOW_HISTORY_MESSAGES * FRAME_BYTES_MORE;
        let kept = Kept {
            messages: rules.kept.messages.min(SHADOW_HISTORY_MESSAGES),
            bytes: rules.kept.bytes.min(bytes_max),
            age: rules.kept.age.min(SHADOW_HISTORY_AGE),
        };
        Self { kept, ..rules }
    }

    /// Of the post, which keeps nothing here: the log has it.
    #[must_use]
    pub fn of_post(class: &Arc<Class>, node: &Arc<NodeRules>) -> Self {
        let rules = Self::new(class, node);
        let kept = Kept {
            messages: 0,
            bytes: 0,
            ..rules.kept
        };
        Self { kept, ..rules }
    }
}

/// In the ids of rooms that only probes are in, so that shards know them without asking.
pub const SHADOW_ID: u64 = 1 << 63;

/// A room and the shards that may have members of it.
pub struct Room {
    /// Never used twice in the life of this process.
    pub id: u64,
    /// As the hub and the backplane know it.
    pub name: Arc<str>,
    /// The name as JSON, as clients say it.
    pub name_json: Box<str>,
    /// Which hook is asked about what is said in it; settled by the first to join, and by nobody without such hooks.
    pub chat_hook: OnceLock<Option<u16>>,
    rules: Arc<Rules>,
    inboxes: Arc<[Arc<Inbox>]>,
    /// None if no hook is told of it, or the backplane sees to that.
    told: Option<Box<told::Told>>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({})", self.id)
    }
}

struct State {
    /// Who numbered the chats: random words, never used again.
    lineage: Lineage,
    history: History,
    /// Bytes of `history` that the node knows of.
    reported_bytes: usize,
    /// When the last chat was said.
    said_ms: u64,
    log: Log,
    presence: Presence,
    /// Connections per shard.
    members: Box<[u32]>,
    count_is_due: bool,
    count_sent_ms: u64,
    /// Removed from the directory: whoever still holds it must look the name up again.
    gone: bool,
}

/// Who numbers what is said.
enum Log {
    /// The room itself, with the keys that it has taken lately.
    Own(Keys<u64>),
    /// The backplane, for all nodes.
    Shared(Box<Shared>),
}

impl State {
    /// Connections.
    fn members(&self) -> usize {
        self.members.iter().map(|count| *count as usize).sum()
    }

    /// Who waits to be let in.
    fn waiting(&self) -> usize {
        match &self.log {
            Log::Own(_) => 0,
            Log::Shared(shared) => shared.waiting_outside(),
        }
    }

    /// Where a replay must begin anew, and why, if the room no longer has what follows `at`.
    fn lost(&self, at: &Place) -> Option<(Place, ResetReason)> {
        let (lineage, history) = (&self.lineage, &self.history);
        let newest = |seq| Place {
            epoch: lineage.epoch(),
            seq,
        };
        match lineage.judge(&at.epoch, at.seq, history.head()) {
            Verdict::Good if history.covers(at.seq) => None,
            Verdict::Good => {
                let seq = history.base();
                let epoch = lineage.epoch_of(seq);
                Some((Place { epoch, seq }, ResetReason::Trimmed))
            }
            Verdict::Forked(seq) => {
                let seq = seq.min(history.head());
                let epoch = lineage.epoch_of(seq);
                Some((Place { epoch, seq }, ResetReason::Rewound))
            }
            Verdict::Unknown => Some((newest(history.head()), ResetReason::Epoch)),
        }
    }

    /// Whether a connection of this user is here, on this node.
    fn holds(&self, user: &str) -> bool {
        match &self.log {
            Log::Own(_) => self.presence.holds(user),
            Log::Shared(shared) => shared.holds(user),
        }
    }
}

impl Room {
    pub(super) fn new(id: u64, name: Arc<str>, rules: Arc<Rules>, inboxes: Arc<[Arc<Inbox>]>) -> Self {
        let (lineage, log) = match &rules.node.errands {
            None => (Lineage::new(random_word(), 1), Log::Own(Keys::default())),
            Some(_) => (Lineage::default(), Log::Shared(Box::default())),
        };
        let state = State {
            lineage,
            history: History::default(),
            reported_bytes: 0,
            said_ms: 0,
            log,
            presence: Presence::default(),
            members: vec![0; inboxes.len()].into(),
            count_is_due: false,
            count_sent_ms: 0,
            gone: false,
        };
        let name_json = server::quote(protocol::room::called(&name)).into();
        Self {
            id,
            name,
            name_json,
            chat_hook: OnceLock::new(),
            rules,
            inboxes,
            told: None,
            state: Mutex::new(state),
        }
    }

    /// Whether only probes are in it: nobody is told of them, and no metric counts what they do.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.id & SHADOW_ID != 0
    }

    /// What holds in rooms like this one.
    #[must_use]
    pub fn class(&self) -> &Class {
        &self.rules.class
    }

    /// Whether it carries what is for users: see [`crate::hub::post`].
    #[must_use]
    pub fn is_post(&self) -> bool {
        self.id & POST_ID != 0
    }

    /// What clients call it.
    #[must_use]
    pub fn called(&self) -> &str {
        protocol::room::called(&self.name)
    }

    /// Lets a member in: `join` to the others, `list` to itself, then what it missed, then live.
    pub fn join(self: &Arc<Self>, joining: &Joining<'_>) -> Joined {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.gone {
            return Joined::Gone;
        }
        if !joining.again
            && self.rules.class.members_max > 0
            && state.members() + state.waiting() >= self.rules.class.members_max
        {
            return Joined::Full;
        }
        if let Log::Shared(_) = state.log {
            return self.join_shared(state, joining);
        }
        let first = !joining.again && state.presence.enter(joining.user, self.rules.class.users_shown);
        if first {
            self.tell_presence(true, &joining.user.json, joining.now_ms);
        }
        let count_is_due = first && self.announce(state, true, joining.user, None, joining.now_ms);
        let recovered = joining.since.map(|since| {
            joining.sees.past
                && state.lineage.judge(since.epoch, since.seq, state.history.head()) == Verdict::Good
                && state.history.covers(since.seq)
        });
        self.enter(state, joining, recovered);
        Joined::In {
            recovered,
            count_is_due,
        }
    }

    /// Tells the shard of a member what it is to hear first, and counts it.
    fn enter(self: &Arc<Self>, state: &mut State, joining: &Joining<'_>, recovered: Option<bool>) {
        if !joining.again {
            state.members[usize::from(joining.member.shard)] += 1;
        }
        let from = match (joining.since, recovered) {
            // Who is in already may be in the middle of another replay: this one takes its place, however short.
            (Some(since), Some(true)) if joining.again || since.seq < state.history.head() => From::After(Place {
                epoch: since.epoch.into(),
                seq: since.seq,
            }),
            _ => From::Head,
        };
        let (user, sees_users) = (joining.user, joining.sees.users);
        let list = self.list_frame(state, user, sees_users, joining.reference, recovered, joining.now_ms);
        self.inbox(joining.member).push(Command::Enter {
            room: Arc::clone(self),
            slot: joining.member.slot,
            list,
            again: (joining.again && from == From::Head)
                .then(|| Asked::new(user, sees_users, joining.reference, recovered)),
            from,
        });
    }

    /// Lets a member out; true if a `count` became due. `closed`: its connection ended, and it may be back in a moment.
    pub fn leave(self: &Arc<Self>, member: MemberId, user: &Arc<str>, closed: bool, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Log::Shared(shared) = &mut state.log
            && shared.stop_waiting(member)
        {
            return false;
        }
        let members = &mut state.members[usize::from(member.shard)];
        *members = members.saturating_sub(1);
        self.inbox(member).push(Command::Leave {
            room: self.id,
            slot: member.slot,
        });
        if let Log::Shared(_) = state.log {
            self.leave_shared(state, user, closed, now_ms);
            return false;
        }
        match state.presence.leave(user, self.rules.class.users_shown) {
            Some(json) => {
                self.tell_presence(false, &json, now_ms);
                let user = User {
                    id: Arc::clone(user),
                    json,
                };
                self.announce(state, false, &user, None, now_ms)
            }
            None => false,
        }
    }

    /// Numbers, keeps and hands on what a member says.
    pub fn say(self: &Arc<Self>, saying: &Saying<'_>) -> Said {
        let mut state = self.state.lock();
        let state = &mut *state;
        match &mut state.log {
            Log::Own(_) => self.say_own(state, &saying.words()),
            Log::Shared(shared) => {
                let whom = Asker::member(saying.member, saying.reference);
                self.say_shared(shared, &saying.words(), whom)
            }
        }
    }

    /// As [`Room::say`], where the room itself numbers.
    fn say_own(&self, state: &mut State, words: &Words<'_>) -> Said {
        let Log::Own(keys) = &mut state.log else {
            return Said::Unavailable;
        };
        if let Some(key) = words.key {
            keys.trim(words.now_ms, self.rules.class.key_window);
            if let Some(seq) = keys.place_of(&words.user.id, key) {
                return Said::Again {
                    epoch: state.lineage.epoch(),
                    seq,
                };
            }
            if keys.is_full() {
                return Said::Unavailable;
            }
        }
        if self.is_choked(state) {
            return Said::Unavailable;
        }
        let seq = state.history.head() + 1;
        let chat = server::Chat {
            room_json: &self.name_json,
            seq,
            epoch: None,
            from_json: &words.user.json,
            content: words.content,
            time_ms: words.now_ms,
        };
        let frame = Frame::text(|out| chat.write(out));
        if let Some(key) = words.key
            && let Log::Own(keys) = &mut state.log
        {
            keys.take(&words.user.id, key, seq, words.now_ms);
        }
        let members = self.hand_on(state, seq, words.now_ms, frame);
        self.tell_said(words, &state.lineage.epoch(), seq);
        if self.is_post() {
            self.hand_out(words.content, words.now_ms, words.now_ms);
        }
        Said::New {
            epoch: state.lineage.epoch(),
            seq,
            members,
        }
    }

    /// Keeps a chat and hands it to the members; says how many those are.
    fn hand_on(&self, state: &mut State, seq: u64, time_ms: u64, frame: Frame) -> usize {
        state.history.push(seq, time_ms, frame.clone(), &self.rules.kept);
        state.said_ms = time_ms;
        self.report(state, time_ms);
        self.rules.node.taps.to_room(&self.name, &frame);
        let mut members = 0;
        for (_, inbox, count) in self.with_members(state) {
            members += count as usize;
            inbox.push(Command::Chat {
                room: self.id,
                frame: frame.clone(),
                window_ms: self.rules.flush_window_ms,
            });
        }
        members
    }

    /// Answers `list`, in order with the chats: the reply tells a client where it stands.
    pub fn list(&self, member: MemberId, user: &User, reference: Option<Ref<'_>>, now_ms: u64) {
        let mut state = self.state.lock();
        // Who may not see who is here may not ask either.
        let frame = self.list_frame(&mut state, user, true, reference, None, now_ms);
        self.inbox(member).push(Command::List {
            room: self.id,
            slot: member.slot,
            frame,
            asked: Asked::new(user, true, reference, None),
        });
    }

    /// Answers `history`.
    pub fn history(self: &Arc<Self>, asked: &Paging<'_>) -> Paged {
        let mut state = self.state.lock();
        if let Log::Shared(shared) = &mut state.log
            && !shared.is_complete()
        {
            return self.page_later(shared, asked);
        }
        Paged::Now(self.history_frame(&mut state, asked.page, asked.limit, asked.reference, asked.now_ms))
    }

    fn history_frame(
        &self,
        state: &mut State,
        page: Page,
        limit: usize,
        reference: Option<Ref<'_>>,
        now_ms: u64,
    ) -> Frame {
        state.history.trim(now_ms, &self.rules.kept);
        let history = &state.history;
        let mut bytes = 0;
        // An entry of the log that nobody could read is no message.
        let is_chat = |(_, frame): &(u64, &Frame)| frame.payload().starts_with(br#"{"type":"chat""#);
        let mut fits = |frame: &Frame| {
            bytes += frame.payload().len() + 1;
            bytes <= HISTORY_REPLY_BYTES || bytes == frame.payload().len() + 1
        };
        let (messages, more) = match page {
            Page::After(seq) => {
                let taken: Vec<_> = history
                    .after(seq)
                    .filter(is_chat)
                    .take(limit)
                    .take_while(|(_, frame)| fits(frame))
                    .collect();
                // With nothing left above `seq` there is no more either, or a client would ask for ever.
                let more = taken.last().is_some_and(|(seq, _)| *seq < history.head());
                (taken, more)
            }
            Page::Latest | Page::Before(_) => {
                let end = if let Page::Before(seq) = page { seq } else { u64::MAX };
                let mut taken: Vec<_> = history
                    .before(end)
                    .filter(is_chat)
                    .take(limit)
                    .take_while(|(_, frame)| fits(frame))
                    .collect();
                taken.reverse();
                let more = taken.first().is_some_and(|(seq, _)| *seq > history.first());
                (taken, more)
            }
        };
        let epoch = state.lineage.epoch();
        let mut payloads: Vec<Cow<'_, [u8]>> = messages.iter().map(|(_, frame)| frame.payload().into()).collect();
        if let (Some((seq, _)), Some(payload)) = (messages.first(), payloads.first_mut()) {
            // The first of each epoch names it, unless that is the newest.
            let theirs = state.lineage.epoch_of(*seq);
            if theirs != epoch
                && let Some(named) = with_epoch(payload, *seq, &theirs)
            {
                *payload = named.into();
            }
        }
        let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &**payload).collect();
        let reply = server::History {
            reference,
            room_json: &self.name_json,
            epoch: &epoch,
            messages: &payloads,
            first: history.first(),
            more,
        };
        Frame::text(|out| reply.write(out))
    }

    /// Hands one piece of the messages after the cursor to `take`, and says of each frame whether it is a chat.
    ///
    /// When the head is reached, the lists that were asked for meanwhile are handed out too, and the shard of the
    /// member is told, all under the lock: every chat that was said before is in history and has been handed out,
    /// every later one reaches the shard after that word.
    pub fn replay(
        &self,
        cursor: &Cursor<'_>,
        limits: PieceLimits,
        asked: &[Asked],
        mut take: impl FnMut(Frame, bool),
    ) -> Replay {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some((to, reason)) = state.lost(cursor.at) {
            return Replay::Reset { to, reason };
        }
        let (mut at, mut bytes, mut frames) = (cursor.at.seq, 0, 0);
        for (seq, frame) in state.history.after(at) {
            bytes += frame.bytes().len();
            frames += 1;
            if frames > 1 && (bytes > limits.bytes || frames > limits.frames) {
                break;
            }
            take(frame.clone(), true);
            at = seq;
        }
        // Before anything was handed out the epoch is the client's own word for the same place.
        let place = |seq| Place {
            epoch: if seq == cursor.at.seq {
                Arc::clone(&cursor.at.epoch)
            } else {
                state.lineage.epoch_of(seq)
            },
            seq,
        };
        if at < state.history.head() {
            return Replay::Piece(place(at));
        }
        if asked.iter().any(|asked| !state.holds(&asked.user.id)) {
            return Replay::Leaving(place(at));
        }
        let at = place(at);
        let now_ms = crate::runtime::now_ms();
        for asked in asked {
            let (user, sees_users, reference) = (&asked.user, asked.sees_users, asked.reference());
            take(
                self.list_frame(state, user, sees_users, reference, asked.recovered, now_ms),
                false,
            );
        }
        self.inbox(cursor.member).push(Command::CaughtUp {
            room: self.id,
            slot: cursor.member.slot,
            generation: cursor.generation,
        });
        Replay::CaughtUp(at)
    }

    /// Sends the count that is due; true if it must wait for a later tick.
    ///
    /// A room of 10,000 that fills up would else spend more on counts than on handshakes.
    pub fn send_count(&self, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        let pause_ms = 1_000 * state.members() as u64 / COUNT_DELIVERIES_PER_SECOND;
        // A clock that was set back must not silence the room.
        let since_ms = now_ms.checked_sub(state.count_sent_ms).unwrap_or(pause_ms);
        if since_ms < pause_ms {
            return true;
        }
        state.count_is_due = false;
        state.count_sent_ms = now_ms;
        let count = server::Count {
            room_json: &self.name_json,
            count: state.presence.count(),
        };
        let frame = Frame::text(|out| count.write(out));
        self.hand_presence(&state, &frame, None);
        false
    }

    /// Forgets what is too old, and says what is left.
    pub(super) fn sweep(self: &Arc<Self>, now_ms: u64) -> Swept {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.history.trim(now_ms, &self.rules.kept);
        self.report(state, now_ms);
        let keys = match &mut state.log {
            Log::Own(keys) => keys,
            Log::Shared(_) => return self.sweep_shared(state, now_ms),
        };
        keys.trim(now_ms, self.rules.class.key_window);
        if state.presence.count() > 0 {
            return Swept::Inhabited;
        }
        if state.history.is_empty() && keys.is_empty() {
            return self.end(state);
        }
        Swept::Deserted { said_ms: state.said_ms }
    }

    /// From now on nobody may use this room: the next look-up makes a new one.
    fn end(&self, state: &mut State) -> Swept {
        state.gone = true;
        self.rules
            .node
            .bytes
            .fetch_sub(signed(state.reported_bytes), Ordering::Relaxed);
        Swept::Gone
    }

    /// Forgets everything that was said; who comes back is told that it cannot be recovered.
    pub(super) fn forget(&self, now_ms: u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.history.trim(
            now_ms,
            &Kept {
                messages: 0,
                ..self.rules.kept
            },
        );
        if let Log::Shared(shared) = &mut state.log {
            // The log still has it.
            shared.is_incomplete();
        }
        self.report(state, now_ms);
    }

    /// Tells the node what this room keeps, if that has changed by much. A node that keeps too much lets the room in
    /// which something is said keep a quarter of what it otherwise might.
    fn report(&self, state: &mut State, now_ms: u64) {
        if self.rules.node.bytes_over() > 0 {
            let base = state.history.base();
            state.history.trim(now_ms, &self.rules.kept.pressed());
            if let Log::Shared(shared) = &mut state.log
                && state.history.base() != base
            {
                // The log still has it.
                shared.is_incomplete();
            }
        }
        let bytes = state.history.bytes();
        if bytes.abs_diff(state.reported_bytes) >= REPORT_BYTES || bytes == 0 {
            self.rules
                .node
                .bytes
                .fetch_add(signed(bytes) - signed(state.reported_bytes), Ordering::Relaxed);
            state.reported_bytes = bytes;
        }
    }

    /// For the gauges: users, messages kept, bytes kept.
    #[must_use]
    pub fn measure(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.presence.count(), state.history.len(), state.history.bytes())
    }

    /// For whoever looks on.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let state = self.state.lock();
        Glance {
            members: state.members(),
            users: state.presence.count(),
            head: state.history.head(),
        }
    }

    /// Tells the members that a user came or went. In a large room a `count` becomes due instead: 10,000 joins
    /// must not become 50 million frames. True if it became due just now.
    ///
    /// `except`: a user who is not told, since it is about itself.
    fn announce(&self, state: &mut State, joined: bool, user: &User, except: Option<&Arc<str>>, now_ms: u64) -> bool {
        if self.is_shadow() {
            return false;
        }
        if state.presence.count() > self.rules.class.users_shown {
            if !std::mem::replace(&mut state.count_is_due, true) {
                // A room that has just filled up waits like any other of its size.
                state.count_sent_ms = state.count_sent_ms.max(now_ms.saturating_sub(1_000));
                return true;
            }
            return false;
        }
        let line = server::Presence {
            joined,
            room_json: &self.name_json,
            user_json: &user.json,
            time_ms: now_ms,
        };
        let frame = Frame::text(|out| line.write(out));
        self.hand_presence(state, &frame, except);
        false
    }

    /// Hands `join`, `left` or `count` to the members who may see who is here.
    fn hand_presence(&self, state: &State, frame: &Frame, except: Option<&Arc<str>>) {
        self.rules.node.taps.to_room(&self.name, frame);
        let granted = match self.rules.class.list {
            Who::All => None,
            Who::Granted => Some(&self.name),
            Who::None => return,
        };
        self.to_members(state, |room| Command::Presence {
            room,
            frame: frame.clone(),
            except: except.cloned(),
            granted: granted.cloned(),
        });
    }

    fn inbox(&self, member: MemberId) -> &Inbox {
        &self.inboxes[usize::from(member.shard)]
    }

    /// Whether a shard that must hear of what is said here is too far behind. The post has no members: it is for all shards.
    fn is_choked(&self, state: &State) -> bool {
        if self.is_post() {
            return self.inboxes.iter().any(|inbox| inbox.is_full());
        }
        self.with_members(state).any(|(_, inbox, _)| inbox.is_full())
    }

    fn to_members(&self, state: &State, command: impl Fn(u64) -> Command) {
        for (_, inbox, _) in self.with_members(state) {
            inbox.push(command(self.id));
        }
    }

    /// The shards that have members, with how many.
    fn with_members<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (usize, &'a Inbox, u32)> {
        let counted = self.inboxes.iter().zip(&state.members).enumerate();
        counted
            .filter(|(_, (_, count))| **count > 0)
            .map(|(shard, (inbox, count))| (shard, &**inbox, *count))
    }

    fn list_frame(
        &self,
        state: &mut State,
        user: &User,
        sees_users: bool,
        reference: Option<Ref<'_>>,
        recovered: Option<bool>,
        now_ms: u64,
    ) -> Frame {
        let (users, count) = if self.is_shadow() || !sees_users {
            // Oneself alone; probes do not see each other either.
            (Arc::clone(&user.json), 1)
        } else {
            let users = state.presence.shown_to(user, self.rules.class.users_shown);
            // Who has just come may not be known to all nodes yet, but always to itself.
            let unknown = usize::from(!state.presence.holds(&user.id));
            (users, state.presence.count() + unknown)
        };
        let as_of_ms = (self.rules.node.errands.as_ref()).map_or(now_ms, |errands| errands.as_of_ms(now_ms));
        let list = server::List {
            reference,
            room_json: &self.name_json,
            users_json: &users,
            count,
            epoch: &state.lineage.epoch(),
            seq: state.history.head(),
            as_of_ms,
            recovered,
        };
        Frame::text(|out| list.write(out))
    }
}

/// A chat's JSON with its epoch named; none if it is already.
fn with_epoch(payload: &[u8], seq: u64, epoch: &str) -> Option<Vec<u8>> {
    // Quotes inside of names are escaped, so this can only be the field.
    let needle = format!(r#""seq":{seq},"#);
    let at = memchr::memmem::find(payload, needle.as_bytes())?;
    let (head, tail) = payload.split_at(at + needle.len());
    let named = tail.starts_with(br#""epoch":"#);
    (!named).then(|| [head, br#""epoch":"#, server::quote(epoch).as_bytes(), b",", tail].concat())
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A room at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Connections on this node.
    pub members: usize,
    /// Users, on all nodes.
    pub users: usize,
    /// Number of the last chat: two glances tell how many were said between them.
    pub head: u64,
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    Inhabited,
    /// Nobody is here, but somebody may come back for what was said.
    Deserted {
        said_ms: u64,
    },
    /// Nothing is left that anybody could come back for: to be taken out of the directory.
    Gone,
}

/// 80 random bits: two rooms that ever lived share one with a chance of 2^-80.
fn random_word() -> Arc<str> {
    let bits = uuid::Uuid::new_v4().as_u128();
    format!("{:020x}", bits >> 48).into()
}
