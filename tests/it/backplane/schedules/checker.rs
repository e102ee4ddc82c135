//! Decides from what followers saw alone whether a room kept its promises. Knows no engine.

use std::collections::{BTreeMap, BTreeSet};

use conclave::backplane::contract::Position;
use conclave::protocol::server::ResetReason;

/// What a client would see of a room.
#[derive(Debug, Clone)]
pub enum Event {
    /// It came here; of what was before it asked nothing.
    Start(Position),
    Chat {
        at: Position,
        content: String,
    },
    Reset {
        to: Position,
        reason: ResetReason,
        /// The room's head at that moment.
        head: u64,
    },
}

pub type Transcript = Vec<Event>;

/// A message that the log still has, or that somebody was told was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub at: Position,
    pub content: String,
}

/// One room, after everything has settled.
pub struct Evidence {
    pub transcripts: Vec<Transcript>,
    pub acknowledged: Vec<Said>,
    /// All of it, ascending.
    pub log: Vec<Said>,
    /// Whether the server keeps all that it took, so that only trims may be told.
    pub safe: bool,
    /// Messages that a room keeps.
    pub kept: u64,
}

/// Everything that is wrong, for a person.
pub fn violations(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    one_place_one_message(evidence, &mut wrong);
    for (who, transcript) in evidence.transcripts.iter().enumerate() {
        let mut found = Vec::new();
        let held = hold(transcript, evidence, &mut found);
        compare(&held, evidence, &mut found);
        wrong.extend(found.into_iter().map(|what| format!("follower {who}: {what}")));
    }
    if evidence.safe {
        acknowledged_is_kept(evidence, &mut wrong);
    }
    wrong
}

/// How much happened to a follower, for a person who looks for schedules in which nothing does.
pub fn summary(transcript: &Transcript) -> String {
    let mut counts = BTreeMap::new();
    for event in transcript {
        let word = match event {
            Event::Start(_) => "start".to_owned(),
            Event::Chat { .. } => "chat".to_owned(),
            Event::Reset { reason, .. } => format!("{reason:?}"),
        };
        *counts.entry(word).or_insert(0) += 1;
    }
    format!("{counts:?}")
}

/// What a follower has at the end.
struct Held {
    start: u64,
    /// Content by seq.
    chats: BTreeMap<u64, (Position, String)>,
    /// Seqs that a reset owned up to.
    skipped: Vec<(u64, u64)>,
    at: Position,
}

/// Replays a transcript by the rules for clients (PROTOCOL.md section 3, `reset`).
fn hold(transcript: &Transcript, evidence: &Evidence, wrong: &mut Vec<String>) -> Held {
    let Some(Event::Start(start)) = transcript.first() else {
        panic!("a transcript begins somewhere");
    };
    let mut held = Held {
        start: start.seq,
        chats: BTreeMap::new(),
        skipped: Vec::new(),
        at: start.clone(),
    };
    for event in &transcript[1..] {
        match event {
            Event::Start(_) => panic!("a transcript begins once"),
            Event::Chat { at, content } => {
                if at.seq != held.at.seq + 1 {
                    wrong.push(format!("{content} at {at:?} does not follow {:?}", held.at));
                }
                held.chats.insert(at.seq, (at.clone(), content.clone()));
                held.at = at.clone();
            }
            Event::Reset { to, reason, head } => {
                if evidence.safe && (*reason != ResetReason::Trimmed || head - to.seq < evidence.kept) {
                    wrong.push(format!("reset to {to:?} ({reason:?}) of head {head} was not due"));
                }
                if *reason == ResetReason::Epoch {
                    held.chats.clear();
                    held.skipped = vec![(1, to.seq)];
                } else {
                    held.chats.split_off(&(to.seq + 1));
                    held.skipped.push((held.at.seq + 1, to.seq));
                }
                held.at = to.clone();
            }
        }
    }
    held
}

fn compare(held: &Held, evidence: &Evidence, wrong: &mut Vec<String>) {
    let Some((first, last)) = evidence.log.first().zip(evidence.log.last()) else {
        wrong.push("nothing is kept".to_owned());
        return;
    };
    if held.at.seq != last.at.seq {
        wrong.push(format!("stands at {:?}, the head is {:?}", held.at, last.at));
    }
    let kept: BTreeMap<u64, &Said> = evidence.log.iter().map(|said| (said.at.seq, said)).collect();
    for (seq, (at, content)) in held.chats.range(first.at.seq..) {
        if kept
            .get(seq)
            .is_none_or(|said| said.at != *at || said.content != *content)
        {
            wrong.push(format!(
                "holds {content} at {at:?}, the log has {:?} there",
                kept.get(seq)
            ));
        }
    }
    for said in &evidence.log {
        let seq = said.at.seq;
        let owned = seq <= held.start || held.skipped.iter().any(|(from, to)| (*from..=*to).contains(&seq));
        if !owned && !held.chats.contains_key(&seq) {
            wrong.push(format!("lacks {said:?}, and no reset said so"));
        }
    }
    let mut contents = BTreeSet::new();
    for (at, content) in held.chats.values() {
        if !contents.insert(content) {
            wrong.push(format!("{content} came again at {at:?}"));
        }
    }
    one_sender_one_order(held, wrong);
}

/// Contents are `sender:number`, and those said once are numbered in the order in which they were said.
fn one_sender_one_order(held: &Held, wrong: &mut Vec<String>) {
    let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, content) in held.chats.values() {
        let Some((sender, number)) = content.split_once(':') else {
            continue;
        };
        let number: u64 = number.parse().expect("a number");
        let before = latest.insert(sender, number);
        if before.is_some_and(|before| before >= number) {
            wrong.push(format!("{content} came after {sender}:{before:?}"));
        }
    }
}

fn one_place_one_message(evidence: &Evidence, wrong: &mut Vec<String>) {
    let seen = evidence.transcripts.iter().flatten().filter_map(|event| match event {
        Event::Chat { at, content } => Some((at, content)),
        Event::Start(_) | Event::Reset { .. } => None,
    });
    let said = evidence.acknowledged.iter().chain(&evidence.log);
    let mut places: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    for (at, content) in seen.chain(said.map(|said| (&said.at, &said.content))) {
        let first = places.entry((&*at.epoch, at.seq)).or_insert(content);
        if first != content {
            wrong.push(format!("{first} and {content} are both at {at:?}"));
        }
    }
}

fn acknowledged_is_kept(evidence: &Evidence, wrong: &mut Vec<String>) {
    let first = evidence.log.first().map_or(u64::MAX, |said| said.at.seq);
    for said in &evidence.acknowledged {
        if said.at.seq >= first && !evidence.log.contains(said) {
            wrong.push(format!("{said:?} was acknowledged and is lost"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(epoch: &str, seq: u64) -> Position {
        Position {
            epoch: epoch.into(),
            seq,
        }
    }

    fn said(seq: u64) -> Said {
        Said {
            at: place("E", seq),
            content: format!("a:{seq}"),
        }
    }

    fn chat(said: Said) -> Event {
        Event::Chat {
            at: said.at,
            content: said.content,
        }
    }

    fn reset(epoch: &str, seq: u64, reason: ResetReason) -> Event {
        Event::Reset {
            to: place(epoch, seq),
            reason,
            head: 5,
        }
    }

    /// Five messages that one follower saw and somebody was told of.
    fn good() -> Evidence {
        let log: Vec<_> = (1..=5).map(said).collect();
        let start = Event::Start(place("E", 0));
        Evidence {
            transcripts: vec![std::iter::once(start).chain(log.iter().cloned().map(chat)).collect()],
            acknowledged: log.clone(),
            log,
            safe: true,
            kept: 40,
        }
    }

    fn caught(what: &str, plant: impl FnOnce(&mut Evidence)) {
        let mut evidence = good();
        plant(&mut evidence);
        let found = violations(&evidence);
        assert!(found.iter().any(|wrong| wrong.contains(what)), "{what}: {found:#?}");
    }

    #[test]
    fn a_good_room_is_not_blamed() {
        assert_eq!(violations(&good()), [""; 0]);
        let mut rewound = good();
        rewound.safe = false;
        let lost = Said {
            at: place("D", 3),
            content: "a:9".to_owned(),
        };
        rewound.transcripts[0].insert(3, chat(lost));
        rewound.transcripts[0].insert(4, reset("E", 2, ResetReason::Rewound));
        assert_eq!(violations(&rewound), [""; 0]);
    }

    #[test]
    fn what_is_planted_is_caught() {
        caught("does not follow", |room| drop(room.transcripts[0].remove(2)));
        caught("no reset said so", |room| drop(room.transcripts[0].remove(2)));
        caught("does not follow", |room| room.transcripts[0].swap(2, 3));
        caught("does not follow", |room| {
            let again = room.transcripts[0][2].clone();
            room.transcripts[0].insert(3, again);
        });
        caught("the head is", |room| drop(room.transcripts[0].pop()));
        caught("was acknowledged and is lost", |room| {
            room.acknowledged[3].content = "a:99".to_owned();
        });
        caught("was not due", |room| {
            room.transcripts[0].insert(3, reset("E", 2, ResetReason::Rewound))
        });
        caught("was not due", |room| {
            room.transcripts[0].insert(3, reset("E", 2, ResetReason::Trimmed))
        });
    }

    #[test]
    fn doubles_and_turned_orders_are_caught_wherever_they_stand() {
        caught("came again", |room| {
            room.log[4].content = "a:1".to_owned();
            room.acknowledged.clear();
            room.transcripts[0][5] = chat(room.log[4].clone());
        });
        caught("came after", |room| {
            let (one, other) = (room.log[1].content.clone(), room.log[2].content.clone());
            (room.log[1].content, room.log[2].content) = (other, one);
            room.acknowledged.clear();
            for at in [1, 2] {
                room.transcripts[0][at + 1] = chat(room.log[at].clone());
            }
        });
    }

    /// An engine that uses the numbers of a lost tail again in the same epoch.
    #[test]
    fn the_naive_epoch_is_caught() {
        let naive = |room: &mut Evidence| {
            room.safe = false;
            room.log[4].content = "b:1".to_owned();
        };
        caught("are both at", naive);
        caught("the log has", |room| {
            naive(room);
            room.acknowledged.clear();
        });
    }
}
