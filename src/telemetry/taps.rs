//! Live views of one room or one user, for an operator: what passes is noted while somebody looks, and nothing is paid
//! while nobody does: one relaxed load of a number that never changes.
//!
//! What is noted is what was sent, by reference; [`shown`] makes it fit for a person, on the thread of whoever looks. Each
//! tap takes so many lines a second and keeps so many bytes until they are fetched; what is beyond is counted.

mod shown;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::connection::Session;
use crate::runtime::now_ms;
use crate::websocket::encoded::Frame;

pub use shown::shown;

/// Bytes of frames that one tap keeps until they are fetched.
const BYTES_MAX: usize = 1024 * 1024;

/// Seconds' worth of lines that one tap keeps until they are fetched.
const SECONDS_KEPT: usize = 10;

/// Bytes kept of what a user said.
const SAID_BYTES_MAX: usize = 1024;

/// Whom or what a tap is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    Room(Box<str>),
    User(Box<str>),
}

/// One thing that happened.
#[derive(Debug)]
pub struct Line {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub event: Event,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Said to every member of the room.
    ToRoom(Frame),
    /// Said to one connection of the user alone.
    ToUser(Session, Frame),
    /// Said by a connection of the user.
    FromUser(Session, Said),
    /// A connection of the user ended.
    Closed {
        session: Session,
        code: u16,
        reason: &'static str,
    },
}

/// A request, without what nobody else may see.
#[derive(Debug)]
pub struct Said {
    /// The word in `type`.
    pub kind: &'static str,
    pub room: Option<Box<str>>,
    /// Bytes of the whole message.
    pub bytes: usize,
    /// Beginning of a chat's content.
    pub content: Option<Box<str>>,
}

impl Said {
    /// As much of a chat's content as is kept.
    #[must_use]
    pub fn beginning(content: &str) -> Box<str> {
        content[..content.floor_char_boundary(SAID_BYTES_MAX)].into()
    }
}

impl Event {
    fn bytes(&self) -> usize {
        match self {
            Self::ToRoom(frame) | Self::ToUser(_, frame) => frame.bytes().len(),
            Self::FromUser(_, said) => said.content.as_ref().map_or(0, |content| content.len()),
            Self::Closed { .. } => 0,
        }
    }
}

/// Every tap of this node.
#[derive(Debug, Default)]
pub struct Taps {
    /// Of `taps`, readable without its lock.
    open: AtomicUsize,
    taps: RwLock<Vec<Arc<Tap>>>,
}

impl Taps {
    /// Whether anybody looks. Cheap enough to ask for every message.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Begins a tap that notes at most so many lines a second.
    #[must_use]
    pub fn begin(&self, of: Of, lines_per_second: u32) -> Arc<Tap> {
        let tap = Arc::new(Tap {
            of,
            lines_per_second,
            noted: Mutex::new(Noted {
                lines: VecDeque::new(),
                bytes: 0,
                allowance: f64::from(lines_per_second),
                at: Instant::now(),
                left_out: 0,
            }),
            came: Notify::new(),
        });
        let mut taps = self.taps.write();
        taps.push(Arc::clone(&tap));
        self.open.store(taps.len(), Ordering::Relaxed);
        tap
    }

    /// Ends a tap.
    pub fn end(&self, tap: &Arc<Tap>) {
        let mut taps = self.taps.write();
        taps.retain(|known| !Arc::ptr_eq(known, tap));
        self.open.store(taps.len(), Ordering::Relaxed);
    }

    /// Something is said to all members of a room.
    pub fn to_room(&self, room: &str, frame: &Frame) {
        if self.is_on() {
            self.note(
                |of| matches!(of, Of::Room(name) if **name == *room),
                || Event::ToRoom(frame.clone()),
            );
        }
    }

    /// Something is said to one connection of a user.
    pub fn to_user(&self, user: &str, session: Session, frame: &Frame) {
        self.note_of_user(user, || Event::ToUser(session, frame.clone()));
    }

    /// A user said something.
    pub fn from_user(&self, user: &str, session: Session, said: impl Fn() -> Said) {
        self.note_of_user(user, || Event::FromUser(session, said()));
    }

    /// A connection of a user ended.
    pub fn closed(&self, user: &str, session: Session, code: u16, reason: &'static str) {
        self.note_of_user(user, || Event::Closed { session, code, reason });
    }

    fn note_of_user(&self, user: &str, event: impl Fn() -> Event) {
        if self.is_on() {
            self.note(|of| matches!(of, Of::User(id) if **id == *user), event);
        }
    }

    #[cold]
    fn note(&self, is_about: impl Fn(&Of) -> bool, event: impl Fn() -> Event) {
        for tap in self.taps.read().iter().filter(|tap| is_about(&tap.of)) {
            tap.note(&event);
        }
    }
}

/// One live view.
#[derive(Debug)]
pub struct Tap {
    pub of: Of,
    lines_per_second: u32,
    noted: Mutex<Noted>,
    came: Notify,
}

#[derive(Debug)]
struct Noted {
    lines: VecDeque<Line>,
    /// Of frames in `lines`.
    bytes: usize,
    /// Lines that may still come now.
    allowance: f64,
    /// When the allowance was that.
    at: Instant,
    /// Since the last fetch.
    left_out: u64,
}

/// What was noted since the last time.
#[derive(Debug, Default)]
pub struct Fetched {
    pub lines: Vec<Line>,
    /// Lines over the rate or over what is kept.
    pub left_out: u64,
}

impl Tap {
    fn note(&self, event: impl Fn() -> Event) {
        let rate = f64::from(self.lines_per_second);
        let mut noted = self.noted.lock();
        let now = Instant::now();
        noted.allowance = (noted.allowance + now.duration_since(noted.at).as_secs_f64() * rate).min(rate.max(1.0));
        noted.at = now;
        if noted.allowance < 1.0 || noted.lines.len() >= self.lines_per_second as usize * SECONDS_KEPT {
            noted.left_out += 1;
            return;
        }
        let event = event();
        let bytes = event.bytes();
        if noted.bytes + bytes > BYTES_MAX {
            noted.left_out += 1;
            return;
        }
        noted.allowance -= 1.0;
        noted.bytes += bytes;
        noted.lines.push_back(Line {
            time_ms: now_ms(),
            event,
        });
        drop(noted);
        self.came.notify_one();
    }

    /// Takes what was noted, as soon as there is something; nothing, once `patience` is over.
    ///
    /// # Cancel safety
    /// Cancel safe: what is taken is returned at once.
    pub async fn fetch(&self, patience: Duration) -> Fetched {
        // What follows at once comes along, so that nobody has to ask for each line.
        const GATHER: Duration = Duration::from_millis(150);
        if self.is_empty() && tokio::time::timeout(patience, self.came.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
        let mut noted = self.noted.lock();
        noted.bytes = 0;
        Fetched {
            lines: std::mem::take(&mut noted.lines).into(),
            left_out: std::mem::take(&mut noted.left_out),
        }
    }

    fn is_empty(&self) -> bool {
        let noted = self.noted.lock();
        noted.lines.is_empty() && noted.left_out == 0
    }
}
