//! Which connections this shard has, and which of them are in which room.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::auth::Identity;
use crate::connection::transport::Transport;
use crate::connection::{Conn, NEVER, OutboxLimits};
use crate::hub::MemberId;
use crate::shard::held::Holding;
use crate::shard::users::Users;
use crate::telemetry::metrics::SlowConsumer;

/// Rooms and slots are our own consecutive numbers: one multiplication spreads them well enough, and nobody
/// outside can choose them.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio (Knuth, TAOCP 3, section 6.4).
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

pub(super) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// By slot. Entries lie side by side, so a broadcast walks an array.
type BySlot<T> = IndexMap<u32, T, BuildHasherDefault<NumberHasher>>;

/// One room's members here.
#[derive(Default)]
pub(super) struct Members {
    /// Get every frame.
    pub live: BySlot<Arc<Conn>>,
    /// Get every frame but chats, which they read from history; with the generation of the replay.
    pub replaying: BySlot<(Arc<Conn>, u32)>,
    /// Where the next broadcast begins, so that nobody is always last.
    pub turn: usize,
}

/// What only this shard touches.
pub(super) struct Local {
    conns: Vec<Option<Arc<Conn>>>,
    free: Vec<u32>,
    /// Connections there have ever been.
    lives: u16,
    rooms: Numbered<u64, Members>,
    /// Of clients; probes are nobody's business, and echoes nobody's.
    users: Users,
    /// Rooms that a connection is to leave and has not left yet, by slot.
    removals: Numbered<u32, Vec<Arc<str>>>,
    /// Connections with something to write, each once.
    pub dirty: VecDeque<Arc<Conn>>,
    /// Connections whose socket is full, each once; looked over at every tick.
    pub waiting: Vec<Arc<Conn>>,
    /// Chats that wait for more.
    pub holding: Holding,
    /// Ends of tokens, soonest first. An entry is stale if the connection has gone or has a newer token.
    expiries: BinaryHeap<Reverse<(u64, u32)>>,
    /// Chats handed to members, for sampling.
    pub broadcasts: u64,
}

/// Where a broadcast puts the connections that it concerns.
pub(super) struct Queue<'a> {
    pub dirty: &'a mut VecDeque<Arc<Conn>>,
    /// Over a limit: to be cut.
    pub late: Vec<(Arc<Conn>, SlowConsumer)>,
}

/// Rooms that one connection may have been told to leave before it has left any.
const REMOVALS_MAX: usize = 256;

/// Stale expiries that are put up with before the heap is built anew.
const STALE_EXPIRIES: usize = 1_024;

impl Local {
    pub fn new(limits: &OutboxLimits) -> Self {
        Self {
            conns: Vec::new(),
            free: Vec::new(),
            lives: 0,
            rooms: Numbered::default(),
            dirty: VecDeque::new(),
            waiting: Vec::new(),
            holding: Holding::new(limits),
            users: Users::default(),
            removals: Numbered::default(),
            expiries: BinaryHeap::new(),
            broadcasts: 0,
        }
    }

    pub fn register(
        &mut self,
        shard: u16,
        transport: Transport,
        identity: Option<Arc<Identity>>,
        is_probe: bool,
        expires_at: u64,
    ) -> Arc<Conn> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            u32::try_from(self.conns.len() - 1).expect("fewer than 2^32 descriptors per process")
        });
        self.lives = self.lives.wrapping_add(1);
        let member = MemberId {
            slot,
            shard,
            life: self.lives,
        };
        if let Some(identity) = identity.as_ref().filter(|_| !is_probe) {
            self.users.add(&identity.user_id, slot);
        }
        let conn = Arc::new(Conn::new(member, transport, identity, is_probe, expires_at));
        self.conns[slot as usize] = Some(Arc::clone(&conn));
        self.watch_expiry(&conn);
        conn
    }

    /// The slot may be used again. Only called when every command about the old connection has been done.
    pub fn forget(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot as usize).and_then(Option::take) {
            self.removals.remove(&slot);
            if let Some(identity) = conn.identity() {
                self.users.remove(&identity.user_id, slot);
            }
            self.free.push(slot);
        }
    }

    /// The connections of this user, but for those of probes.
    pub fn of_user(&self, user: &str) -> Vec<Arc<Conn>> {
        let conns = self.users.slots(user).filter_map(|slot| self.conn(slot));
        conns.filter(|conn| conn.is_of(user)).cloned().collect()
    }

    /// Notes that a connection is to leave the room of this name; false if so many wait for that that it is not noted.
    pub fn remove_from(&mut self, slot: u32, room: &Arc<str>) -> bool {
        let rooms = self.removals.entry(slot).or_default();
        if !rooms.contains(room) {
            if rooms.len() == REMOVALS_MAX {
                return false;
            }
            rooms.push(Arc::clone(room));
        }
        true
    }

    /// Whether some connection is to leave a room.
    pub fn removes(&self) -> bool {
        !self.removals.is_empty()
    }

    /// The rooms that a connection is to leave, which are forgotten then; `but` this one, which stays noted.
    pub fn take_removals(&mut self, slot: u32, but: Option<&str>) -> Vec<Arc<str>> {
        let mut rooms = self.removals.remove(&slot).unwrap_or_default();
        if let Some(index) = rooms.iter().position(|room| Some(&**room) == but) {
            let later = rooms.swap_remove(index);
            self.removals.insert(slot, vec![later]);
        }
        if self.removals.is_empty() {
            // A rush must not leave its table behind.
            self.removals = Numbered::default();
        }
        rooms
    }

    pub fn conn(&self, slot: u32) -> Option<&Arc<Conn>> {
        self.conns.get(slot as usize)?.as_ref()
    }

    /// The very connection that was asked for, not a later one in its slot.
    pub fn same(&self, member: MemberId) -> Option<&Arc<Conn>> {
        self.conn(member.slot).filter(|conn| conn.member == member)
    }

    pub fn conns(&self) -> impl Iterator<Item = &Arc<Conn>> {
        self.conns.iter().flatten()
    }

    pub fn members(&self) -> Vec<MemberId> {
        self.conns().map(|conn| conn.member).collect()
    }

    /// The connections of at most `most` slots from this one on, and the slot that comes next, if there is one.
    pub fn piece(&self, from: u32, most: usize) -> (impl Iterator<Item = &Arc<Conn>>, Option<u32>) {
        let rest = self.conns.get(from as usize..).unwrap_or_default();
        let next = (rest.len() > most).then(|| from.saturating_add(u32::try_from(most).unwrap_or(u32::MAX)));
        (rest.iter().take(most).flatten(), next)
    }

    /// The connections of one of `buckets`: slots are dealt out in turn, so every visit is spread evenly.
    pub fn bucket(&self, bucket: usize, buckets: usize) -> impl Iterator<Item = &Arc<Conn>> {
        self.conns.iter().skip(bucket).step_by(buckets).flatten()
    }

    pub fn watch_expiry(&mut self, conn: &Arc<Conn>) {
        if conn.expires_at() == NEVER {
            return;
        }
        let live = self.conns.len() - self.free.len();
        if self.expiries.len() > 2 * live + STALE_EXPIRIES {
            // Connections come and go, tokens are replaced: their entries would stay until their time has come.
            let expiring = self.conns.iter().flatten().filter(|conn| conn.expires_at() != NEVER);
            self.expiries = expiring
                .map(|conn| Reverse((conn.expires_at(), conn.member.slot)))
                .collect();
            return;
        }
        self.expiries.push(Reverse((conn.expires_at(), conn.member.slot)));
    }

    /// The next connection whose token has ended at `now_s`.
    pub fn pop_expired(&mut self, now_s: u64) -> Option<Arc<Conn>> {
        while let Some(Reverse((at_s, slot))) = self.expiries.peek().copied() {
            if at_s > now_s {
                return None;
            }
            self.expiries.pop();
            if let Some(conn) = self.conn(slot)
                && conn.expires_at() <= now_s
            {
                return Some(Arc::clone(conn));
            }
        }
        None
    }

    pub fn room(&mut self, room: u64) -> Option<&mut Members> {
        self.rooms.get_mut(&room)
    }

    /// The room's members, and where to put who has something to write.
    pub fn room_and_queue(&mut self, room: u64) -> (Option<&mut Members>, Queue<'_>) {
        let queue = Queue {
            dirty: &mut self.dirty,
            late: Vec::new(),
        };
        (self.rooms.get_mut(&room), queue)
    }

    /// The room's members, made if this is the first.
    pub fn room_for(&mut self, room: u64) -> &mut Members {
        self.rooms.entry(room).or_default()
    }

    pub fn leave(&mut self, room: u64, slot: u32) {
        let Some(members) = self.rooms.get_mut(&room) else {
            return;
        };
        members.live.swap_remove(&slot);
        members.replaying.swap_remove(&slot);
        if members.live.is_empty() && members.replaying.is_empty() {
            self.rooms.remove(&room);
        }
    }
}
