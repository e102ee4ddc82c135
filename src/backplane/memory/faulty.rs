//! Any engine with bad luck: for tests of what is above the trait. Seeded, so that a schedule comes again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::backplane::contract::{
    Advertised, Backplane, Call, Capabilities, Change, Control, Counted, Draft, Entry, Failed, Head, Incarnation,
    Opened, Outcome, Page, Position, PresenceEvent, Presented, Range, Refusal, Renewal, Revocation, RoomKey, Scope,
    Sink, Tally, Users,
};
use crate::runtime::Tasks;

/// Wake-ups held back at a time.
const HELD_MAX: usize = 16;

/// How often it goes wrong, of 1,000 times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// A wake-up never comes.
    pub dropped: u32,
    /// It comes twice.
    pub doubled: u32,
    /// Later ones come before it.
    pub held: u32,
    /// A call is refused.
    pub refused: u32,
    /// A call is done, but nobody hears so.
    pub unanswered: u32,
}

/// xorshift64*: which numbers come is not important, only that they come again.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    pub fn hits(&mut self, of_1000: u32) -> bool {
        self.below(1_000) < u64::from(of_1000)
    }
}

enum Wakeup {
    Message(Arc<str>, Entry),
    Presence(Arc<str>, PresenceEvent),
}

struct Luck {
    dice: Dice,
    rates: Rates,
    held: Vec<Wakeup>,
}

/// A backplane that drops, doubles and reorders wake-ups, and fails calls before or after they are done.
pub struct Faulty {
    inner: Arc<dyn Backplane>,
    muddle: Arc<Muddle>,
}

struct Muddle {
    sink: std::sync::OnceLock<Arc<dyn Sink>>,
    luck: Mutex<Luck>,
}

enum Fate {
    Done,
    Refused,
    Unanswered,
}

impl Faulty {
    pub fn new(inner: Arc<dyn Backplane>, seed: u64, rates: Rates) -> Arc<Self> {
        let luck = Luck {
            dice: Dice::new(seed),
            rates,
            held: Vec::new(),
        };
        Arc::new(Self {
            inner,
            muddle: Arc::new(Muddle {
                sink: std::sync::OnceLock::new(),
                luck: Mutex::new(luck),
            }),
        })
    }

    /// From now on it goes wrong so often. Rates of 0 make it good: what was held back comes now.
    pub fn set(&self, rates: Rates) {
        self.muddle.luck.lock().rates = rates;
        if rates.held == 0 {
            self.muddle.release();
        }
    }

    /// As after a new link: whatever was missed is to be looked for.
    pub fn suspect(&self) {
        if let Some(sink) = self.muddle.sink.get() {
            sink.suspect(Scope::All);
            sink.control_suspect();
        }
    }

    fn fate(&self) -> Fate {
        let mut luck = self.muddle.luck.lock();
        let Rates {
            refused, unanswered, ..
        } = luck.rates;
        if luck.dice.hits(refused) {
            Fate::Refused
        } else if luck.dice.hits(unanswered) {
            Fate::Unanswered
        } else {
            Fate::Done
        }
    }

    fn call<'a, T: Send + 'a>(&'a self, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move {
            match self.fate() {
                Fate::Refused => Err(Failed::Refused(Refusal::Away)),
                Fate::Done => call.await,
                Fate::Unanswered => {
                    let _ = call.await;
                    Err(Failed::Unknown)
                }
            }
        })
    }
}

impl Muddle {
    fn wake(&self, wakeup: Wakeup) {
        let mut luck = self.luck.lock();
        let rates = luck.rates;
        if luck.dice.hits(rates.dropped) {
            return;
        }
        if luck.held.len() < HELD_MAX && luck.dice.hits(rates.held) {
            luck.held.push(wakeup);
            return;
        }
        let twice = luck.dice.hits(rates.doubled);
        let late = !luck.held.is_empty() && luck.dice.hits(500);
        let late = late.then(|| {
            let count = luck.held.len() as u64;
            let at = luck.dice.below(count);
            luck.held.swap_remove(usize::try_from(at).unwrap_or(0))
        });
        drop(luck);
        self.hand_on(&wakeup);
        if twice {
            self.hand_on(&wakeup);
        }
        if let Some(late) = late {
            self.hand_on(&late);
        }
    }

    fn release(&self) {
        let held = std::mem::take(&mut self.luck.lock().held);
        for wakeup in &held {
            self.hand_on(wakeup);
        }
    }

    fn hand_on(&self, wakeup: &Wakeup) {
        let Some(sink) = self.sink.get() else {
            return;
        };
        match wakeup {
            Wakeup::Message(room, entry) => sink.message(room, entry.clone()),
            Wakeup::Presence(room, event) => sink.presence(room, event.clone()),
        }
    }

    fn sink(&self, tell: impl FnOnce(&dyn Sink)) {
        if let Some(sink) = self.sink.get() {
            tell(&**sink);
        }
    }
}

impl Sink for Muddle {
    fn message(&self, room: &str, entry: Entry) {
        self.wake(Wakeup::Message(room.into(), entry));
    }

    fn presence(&self, room: &str, event: PresenceEvent) {
        self.wake(Wakeup::Presence(room.into(), event));
    }

    fn control(&self, control: Control) {
        self.sink(|sink| sink.control(control));
    }

    fn control_suspect(&self) {
        self.sink(|sink| sink.control_suspect());
    }

    fn suspect(&self, scope: Scope<'_>) {
        self.sink(|sink| sink.suspect(scope));
    }

    fn up(&self, up: bool) {
        self.sink(|sink| sink.up(up));
    }

    fn unready(&self, unready: bool) {
        self.sink(|sink| sink.unready(unready));
    }
}

impl Backplane for Faulty {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn start<'a>(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        tasks: &'a Tasks,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> {
        let _ = self.muddle.sink.set(sink);
        let muddle: Arc<dyn Sink> = Arc::clone(&self.muddle) as _;
        Arc::clone(&self.inner).start(muddle, tasks)
    }

    fn publish<'a>(
        &'a self,
        room: &'a RoomKey,
        drafts: &'a [Draft],
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>> {
        Box::pin(async move {
            match self.fate() {
                Fate::Refused => vec![Outcome::Refused(Refusal::Away); drafts.len()],
                Fate::Done => self.inner.publish(room, drafts, within).await,
                Fate::Unanswered => {
                    drop(self.inner.publish(room, drafts, within).await);
                    vec![Outcome::Unknown; drafts.len()]
                }
            }
        })
    }

    fn attach<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Opened> {
        self.call(self.inner.attach(room))
    }

    fn detach<'a>(&'a self, room: &'a RoomKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.inner.detach(room)
    }

    fn range<'a>(&'a self, room: &'a RoomKey, after: &'a Position, limit: usize) -> Call<'a, Range> {
        self.call(self.inner.range(room, after, limit))
    }

    fn before<'a>(&'a self, room: &'a RoomKey, seq: u64, limit: usize) -> Call<'a, Page> {
        self.call(self.inner.before(room, seq, limit))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomKey]) -> Call<'a, Vec<Option<Head>>> {
        self.call(self.inner.heads(rooms))
    }

    fn users<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Users> {
        self.call(self.inner.users(room))
    }

    fn present<'a>(&'a self, incarnation: &'a Incarnation, changes: &'a [Change]) -> Call<'a, Presented> {
        self.call(self.inner.present(incarnation, changes))
    }

    fn assert_held<'a>(&'a self, incarnation: &'a Incarnation, held: &'a [Change]) -> Call<'a, Presented> {
        self.call(self.inner.assert_held(incarnation, held))
    }

    fn renew<'a>(&'a self, incarnation: &'a Incarnation, begin: bool, lease: Duration) -> Call<'a, Renewal> {
        self.call(self.inner.renew(incarnation, begin, lease))
    }

    fn advertise<'a>(&'a self, incarnation: &'a Incarnation, facts: &'a [u8]) -> Call<'a, Vec<Advertised>> {
        self.call(self.inner.advertise(incarnation, facts))
    }

    fn count<'a>(&'a self, incarnation: &'a Incarnation, user: &'a str, tally: Tally, max: u32) -> Call<'a, Counted> {
        self.call(self.inner.count(incarnation, user, tally, max))
    }

    fn recount<'a>(&'a self, incarnation: &'a Incarnation, users: &'a [(Arc<str>, Tally)]) -> Call<'a, Presented> {
        self.call(self.inner.recount(incarnation, users))
    }

    fn reap<'a>(&'a self, dead: &'a Incarnation) -> Call<'a, bool> {
        self.call(self.inner.reap(dead))
    }

    fn resign<'a>(&'a self, incarnation: &'a Incarnation) -> Call<'a, ()> {
        self.call(self.inner.resign(incarnation))
    }

    fn tell<'a>(&'a self, control: &'a Control) -> Call<'a, ()> {
        self.call(self.inner.tell(control))
    }

    fn revocations(&self) -> Call<'_, Vec<Revocation>> {
        self.call(self.inner.revocations())
    }

    fn merge_revocations<'a>(&'a self, known: &'a [Revocation]) -> Call<'a, ()> {
        self.call(self.inner.merge_revocations(known))
    }

    fn put<'a>(&'a self, name: &'a str, value: &'a [u8], lifetime: Duration) -> Call<'a, bool> {
        self.call(self.inner.put(name, value, lifetime))
    }

    fn get<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        self.call(self.inner.get(name))
    }

    fn take<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        self.call(self.inner.take(name))
    }
}
