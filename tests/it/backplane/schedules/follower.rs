//! A client's view of a room: wake-ups, and the log whenever they do not suffice. With the cursor of the server.

use std::time::Duration;

use conclave::backplane::contract::{Entry, Position, RoomKey};
use conclave::backplane::cursor::{Heard, Repair, hear, reopened, repair};
use conclave::protocol::server::ResetReason;

use super::super::peer::{Peer, said};
use super::checker::{Event, Transcript};
use super::dice::Dice;

/// Questions in a row; a room that is quiet needs few.
const QUESTIONS_MAX: usize = 300;

pub struct Follower {
    pub node: usize,
    pub room: RoomKey,
    pub transcript: Transcript,
    pub at: Position,
    /// The log may have what it lacks.
    pub behind: bool,
    /// Entries and suspects of its node that it has looked at.
    seen: (usize, usize),
    /// It hears wake-ups; one that does not lives on questions alone.
    hears: bool,
}

impl Follower {
    /// Comes to a room where it stands now.
    pub async fn join(nodes: &[Peer], node: usize, room: &RoomKey) -> Self {
        let opened = nodes[node].attach(room).await.expect("a good beginning");
        let at = Position {
            epoch: opened.lineage.epoch(),
            seq: opened.head,
        };
        Self {
            node,
            room: room.clone(),
            transcript: vec![Event::Start(at.clone())],
            at,
            behind: false,
            seen: (0, 0),
            hears: true,
        }
    }

    /// A client that was cut somewhere in the past and comes back to `node`.
    pub fn resume(&self, dice: &mut Dice, node: usize) -> Self {
        let transcript = self.transcript[..=dice.below(self.transcript.len())].to_vec();
        let at = match transcript.last().expect("it begins somewhere") {
            Event::Start(at) | Event::Chat { at, .. } | Event::Reset { to: at, .. } => at.clone(),
        };
        Self {
            node,
            room: self.room.clone(),
            transcript,
            at,
            behind: true,
            seen: (0, 0),
            hears: false,
        }
    }

    /// Takes what its node heard meanwhile, not all of it and not in order, and asks for what is missing.
    pub async fn follow(&mut self, nodes: &[Peer], dice: &mut Dice) {
        let heard = &nodes[self.node].heard;
        let (mut entries, suspects) = heard.read(|log| {
            let all = log.messages.get(&*self.room.name).map_or(&[][..], Vec::as_slice);
            (all[self.seen.0..].to_vec(), log.suspects.len())
        });
        self.seen.0 += entries.len();
        self.behind |= std::mem::replace(&mut self.seen.1, suspects) != suspects;
        if self.hears {
            muddle(&mut entries, dice);
            for entry in entries {
                self.wake(entry);
            }
        }
        if self.behind {
            self.repair(nodes, dice).await;
        }
    }

    fn wake(&mut self, entry: Entry) {
        match hear(&self.at, &entry) {
            // As in the server: what is heard during a repair is dropped.
            Heard::Next if !self.behind => self.deliver(&entry),
            Heard::Next | Heard::Ahead | Heard::Foreign => self.behind = true,
            Heard::Old => {}
        }
    }

    fn deliver(&mut self, entry: &Entry) {
        self.at = entry.position.clone();
        self.transcript.push(Event::Chat {
            at: entry.position.clone(),
            content: said(entry),
        });
    }

    fn reset(&mut self, to: Position, reason: ResetReason, head: u64) {
        self.at = to.clone();
        self.transcript.push(Event::Reset { to, reason, head });
    }

    /// Asks until it stands at the head; gives up for now when nobody answers.
    pub async fn repair(&mut self, nodes: &[Peer], dice: &mut Dice) {
        for _ in 0..QUESTIONS_MAX {
            let limit = 1 + dice.below(20);
            let Ok(range) = nodes[self.node].range(&self.room, &self.at, limit).await else {
                return;
            };
            let head = range.head;
            match repair(&self.at, range) {
                Repair::Deliver { entries, again } => {
                    for entry in &entries {
                        self.deliver(entry);
                    }
                    if !again {
                        self.behind = false;
                        return;
                    }
                }
                Repair::Reset { to, reason } => self.reset(to, reason, head),
                Repair::Open => {
                    let Ok(opened) = nodes[self.node].attach(&self.room).await else {
                        return;
                    };
                    if let Some((to, reason)) = reopened(&self.at, opened.head, &opened.lineage) {
                        self.reset(to, reason, opened.head);
                    }
                }
            }
        }
        panic!("{} never ends", self.room.name);
    }

    /// Compares its place with the head, as the audit does.
    pub async fn audit(&mut self, nodes: &[Peer], dice: &mut Dice) -> bool {
        let Ok(heads) = nodes[self.node].heads(std::slice::from_ref(&self.room)).await else {
            return false;
        };
        if heads[0].as_ref().map(|head| &head.position) != Some(&self.at) {
            self.behind = true;
            self.repair(nodes, dice).await;
        }
        !self.behind
    }
}

/// Loses, doubles and turns round some of them.
fn muddle(entries: &mut Vec<Entry>, dice: &mut Dice) {
    entries.retain(|_| !dice.hits(10));
    if !entries.is_empty() && dice.hits(20) {
        let (from, to) = (dice.below(entries.len()), dice.below(entries.len()));
        entries.swap(from, to);
        entries.push(entries[from].clone());
    }
}

/// How long is waited before asking again while nobody answers.
pub const PACE: Duration = Duration::from_millis(20);
