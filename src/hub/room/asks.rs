//! What is asked of a room, and what it answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::backplane::contract::{Outcome, Position as Place};
use crate::hub::{MemberId, Position, User};
use crate::limits::REPLAY_PIECE_BYTES;
use crate::protocol::client::{Page, Ref};
use crate::protocol::server::ResetReason;
use crate::websocket::encoded::Frame;

/// A member comes in.
#[derive(Debug)]
pub struct Joining<'a> {
    pub member: MemberId,
    pub user: &'a User,
    pub since: Option<Position<'a>>,
    pub reference: Option<Ref<'a>>,
    /// It is in the room already: only the list and the replay are wanted.
    pub again: bool,
    pub sees: Sees,
    pub now_ms: u64,
}

/// What a room tells a member of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sees {
    /// Who else is there.
    pub users: bool,
    /// What was said before: without, nothing is replayed.
    pub past: bool,
}

impl Sees {
    /// Where nothing is hidden.
    pub const ALL: Self = Self {
        users: true,
        past: true,
    };
}

/// What became of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// In, and if it asked with `since`, whether everything missed will be replayed.
    In {
        recovered: Option<bool>,
        count_is_due: bool,
    },
    /// The log must be asked first: [`crate::shard::inbox::Command::Settled`] brings the answer.
    Later,
    /// `limits.room_members`
    Full,
    /// The backplane is away, and without it nobody knows where the room stands.
    Unavailable,
    /// The room was removed a moment ago; look it up again.
    Gone,
}

/// What is said, by whomever.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    pub user: &'a User,
    /// Raw JSON.
    pub content: &'a str,
    pub key: Option<&'a str>,
    /// `traceparent` of the publish, for the nodes that hand it on.
    pub trace: Option<&'a str>,
    pub now_ms: u64,
}

/// What became of words whose speaker is no member.
#[derive(Debug)]
pub enum Spoken {
    /// Kept, now or (`again`) when the key was first taken.
    Kept { epoch: Arc<str>, seq: u64, again: bool },
    /// On its way to the backplane. A sender that goes away without a word knows nothing: as [`Outcome::Unknown`].
    Later(oneshot::Receiver<Outcome>),
    /// As [`Said::Unavailable`].
    Unavailable,
    /// The room was removed a moment ago; look it up again.
    Gone,
}

/// Who waits for the backplane's answer.
#[derive(Debug)]
pub enum Asker<T> {
    Member {
        member: MemberId,
        /// The raw JSON of the `ref`.
        reference: Option<Box<str>>,
    },
    /// Somebody in this process who is in no room.
    Caller(oneshot::Sender<T>),
}

impl<T> Asker<T> {
    #[must_use]
    pub fn member(member: MemberId, reference: Option<Ref<'_>>) -> Self {
        Self::Member {
            member,
            reference: reference.map(|reference| reference.as_json().into()),
        }
    }

    #[must_use]
    pub fn is(&self, who: MemberId) -> bool {
        matches!(self, Self::Member { member, .. } if *member == who)
    }

    /// Whether nobody waits any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Caller(caller) if caller.is_closed())
    }
}

/// A page of history, for somebody who is no member: the JSON of a `history`.
#[derive(Debug)]
pub enum Read {
    Now(Frame),
    /// The log is asked. A sender that goes away without a word has no answer.
    Later(oneshot::Receiver<Frame>),
    Unavailable,
    /// The room was removed a moment ago; look it up again.
    Gone,
}

/// Who is in a room, as far as one asks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct People {
    /// The JSON of each, in the order of their ids.
    pub users: Vec<(Arc<str>, Arc<str>)>,
    /// Users in the room.
    pub count: usize,
    /// Whether there are more in this order.
    pub more: bool,
    /// When presence was last known to be right, ms since the Unix epoch.
    pub as_of_ms: u64,
}

impl People {
    /// Those after this id, at most `limit`.
    #[must_use]
    pub fn page<'a>(
        users: impl ExactSizeIterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
        after: Option<&str>,
        limit: usize,
        as_of_ms: u64,
    ) -> Self {
        let count = users.len();
        let mut page: Vec<_> = users
            .filter(|(id, _)| after.is_none_or(|after| &***id > after))
            .collect();
        let more = page.len() > limit;
        if more {
            page.select_nth_unstable_by_key(limit, |(id, _)| *id);
            page.truncate(limit);
        }
        page.sort_unstable_by_key(|(id, _)| *id);
        let kept = |(id, json): (&Arc<str>, &Arc<str>)| (Arc::clone(id), Arc::clone(json));
        Self {
            users: page.into_iter().map(kept).collect(),
            count,
            more,
            as_of_ms,
        }
    }
}

/// What a member says.
#[derive(Debug)]
pub struct Saying<'a> {
    pub member: MemberId,
    pub user: &'a User,
    /// Raw JSON.
    pub content: &'a str,
    pub key: Option<&'a str>,
    pub reference: Option<Ref<'a>>,
    /// `traceparent` of the publish, for the nodes that hand it on.
    pub trace: Option<&'a str>,
    pub now_ms: u64,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Kept, and on its way to `members` connections.
    New { epoch: Arc<str>, seq: u64, members: usize },
    /// The key was taken before: the first message's place.
    Again { epoch: Arc<str>, seq: u64 },
    /// On its way to the backplane: [`crate::shard::inbox::Command::Said`] brings the answer.
    Later,
    /// Not accepted: a shard is too far behind, too much waits for the backplane, or it is away.
    Unavailable,
}

impl<'a> Saying<'a> {
    /// What is said.
    #[must_use]
    pub fn words(&self) -> Words<'a> {
        Words {
            user: self.user,
            content: self.content,
            key: self.key,
            trace: self.trace,
            now_ms: self.now_ms,
        }
    }
}

/// `history` is asked for.
#[derive(Debug)]
pub struct Paging<'a> {
    pub member: MemberId,
    pub page: Page,
    pub limit: usize,
    pub reference: Option<Ref<'a>>,
    pub now_ms: u64,
}

/// A page of history, or word that the log must be asked first.
#[derive(Debug)]
pub enum Paged {
    Now(crate::websocket::encoded::Frame),
    /// [`crate::shard::inbox::Command::Settled`] brings the answer.
    Later,
    Unavailable,
}

/// Where a replay stands.
#[derive(Debug)]
pub struct Cursor<'a> {
    pub member: MemberId,
    /// Which of the connection's replays it is.
    pub generation: u32,
    /// The last message handed out.
    pub at: &'a Place,
}

/// How much of a replay may be put into an outbox at once.
#[derive(Debug, Clone, Copy)]
pub struct PieceLimits {
    pub bytes: usize,
    pub frames: usize,
}

impl PieceLimits {
    /// Half of what may wait for a connection, so that a replay never makes a slow reader of anybody.
    #[must_use]
    pub fn within(bytes: usize, frames: usize) -> Self {
        Self {
            bytes: REPLAY_PIECE_BYTES.min(bytes / 2),
            frames: (frames / 2).max(1),
        }
    }
}

/// A piece of a replay.
#[derive(Debug)]
pub enum Replay {
    /// Read on from here when these have left.
    Piece(Place),
    /// That was all, up to here; the room has told the shard so, in order with its chats.
    CaughtUp(Place),
    /// Up to here, which is all; but the member has left already and lists that it asked for cannot be true any
    /// more. Its shard will come to the leave, and answer them.
    Leaving(Place),
    /// The next messages were forgotten meanwhile, or what was handed out is no longer part of the log: say `reset` and
    /// read on from here.
    Reset { to: Place, reason: ResetReason },
}

/// A chat on its way to the backplane: whom to answer.
#[derive(Debug)]
pub struct Pending {
    pub whom: Asker<Outcome>,
    /// Tried until then.
    pub until_ms: u64,
    /// A try of it has no known end: it may have been kept, and nobody told.
    pub is_doubtful: bool,
}
