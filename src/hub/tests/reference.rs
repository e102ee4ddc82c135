//! What rooms are, said naively: everything ever said in a list, and how much of its end is kept.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::hub::User;
use crate::protocol::client::Page;

#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub messages: usize,
    pub bytes: usize,
    pub age_ms: u64,
}

struct Chat {
    time_ms: u64,
    user: String,
    content: String,
    bytes: usize,
}

/// One life of a room: from its first member until nobody can come back for anything.
#[derive(Default)]
struct Life {
    /// Not known until somebody has been told.
    epoch: Option<String>,
    /// The chat at `i` has the seq `i + 1`.
    chats: Vec<Chat>,
    forgotten: usize,
    /// Connections by user.
    members: HashMap<String, usize>,
    keys: HashMap<(String, String), (u64, u64)>,
}

pub struct Reference {
    kept: Kept,
    key_window_ms: u64,
    rooms: HashMap<&'static str, Life>,
    /// Lives that are over; what was said in them may still be under way.
    over: Vec<Life>,
    /// Every epoch there was.
    epochs: HashMap<String, &'static str>,
}

impl Reference {
    pub fn new(kept: Kept, key_window_ms: u64) -> Self {
        Self {
            kept,
            key_window_ms,
            rooms: HashMap::new(),
            over: Vec::new(),
            epochs: HashMap::new(),
        }
    }

    fn life(&self, room: &str) -> Option<&Life> {
        self.rooms.get(room)
    }

    pub fn members(&self, room: &str) -> usize {
        self.life(room).map_or(0, |life| life.members.values().sum())
    }

    pub fn users(&self, room: &str) -> HashSet<String> {
        self.life(room)
            .map(|life| life.members.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The life that `epoch` numbered.
    fn life_of(&self, epoch: &str) -> &Life {
        let mut lives = self.rooms.values().chain(&self.over);
        lives
            .find(|life| life.epoch.as_deref() == Some(epoch))
            .expect("an epoch that was")
    }

    /// The oldest seq of that epoch that is kept, or the next one.
    pub fn first_of(&self, epoch: &str) -> u64 {
        self.life_of(epoch).forgotten as u64 + 1
    }

    pub fn kept(&self, room: &str) -> usize {
        self.life(room).map_or(0, |life| life.chats.len() - life.forgotten)
    }

    /// The oldest seq that is kept, or the next one.
    pub fn first(&self, room: &str) -> u64 {
        self.life(room).map_or(1, |life| life.forgotten as u64 + 1)
    }

    pub fn head(&self, room: &str) -> (&str, u64) {
        let life = self.life(room).expect("a room with members");
        (life.epoch.as_deref().expect("known"), life.chats.len() as u64)
    }

    pub fn an_old_epoch(&self, room: &str) -> Option<String> {
        let now = self.life(room).and_then(|life| life.epoch.as_deref());
        let mut old: Vec<_> = self.epochs.keys().filter(|epoch| Some(epoch.as_str()) != now).collect();
        old.sort();
        old.first().map(|epoch| (*epoch).clone())
    }

    pub fn covers(&self, room: &str, epoch: &str, seq: u64) -> bool {
        let Some(life) = self.life(room) else { return false };
        life.epoch.as_deref() == Some(epoch) && seq <= life.chats.len() as u64 && seq >= life.forgotten as u64
    }

    pub fn enter(&mut self, room: &'static str, user: &str) {
        *self
            .rooms
            .entry(room)
            .or_default()
            .members
            .entry(user.to_owned())
            .or_default() += 1;
    }

    pub fn leave(&mut self, room: &str, user: &str) {
        let members = &mut self.rooms.get_mut(room).expect("a room with members").members;
        let tabs = members.get_mut(user).expect("a member");
        *tabs -= 1;
        if *tabs == 0 {
            members.remove(user);
        }
    }

    pub fn epoch_is(&mut self, room: &'static str, epoch: &str) {
        let life = self.rooms.get_mut(room).expect("a room with members");
        match &life.epoch {
            Some(known) => assert_eq!(known, epoch, "{room} changed its epoch while it was kept"),
            None => {
                assert_eq!(
                    self.epochs.insert(epoch.to_owned(), room),
                    None,
                    "an epoch was used again"
                );
                life.epoch = Some(epoch.to_owned());
            }
        }
    }

    /// Whether it is new, and its place.
    pub fn say(
        &mut self,
        room: &'static str,
        user: &User,
        key: Option<&str>,
        content: &str,
        now_ms: u64,
    ) -> (bool, String, u64) {
        let window_ms = self.key_window_ms;
        let life = self.rooms.get_mut(room).expect("a room with members");
        let epoch = life.epoch.clone().expect("known");
        let key = key.map(|key| (user.id.to_string(), key.to_owned()));
        if let Some((seq, at_ms)) = key.as_ref().and_then(|key| life.keys.get(key))
            && now_ms < at_ms + window_ms
        {
            return (false, epoch, *seq);
        }
        let seq = life.chats.len() as u64 + 1;
        let text = format!(
            r#"{{"type":"chat","room":"{room}","seq":{seq},"from":{},"content":{content},"time":{now_ms}}}"#,
            user.json
        );
        let head = if text.len() < 126 { 2 } else { 4 };
        life.chats.push(Chat {
            time_ms: now_ms,
            user: user.id.to_string(),
            content: content.to_owned(),
            bytes: head + text.len(),
        });
        if let Some(key) = key {
            life.keys.insert(key, (seq, now_ms));
        }
        self.trim(room, now_ms);
        (true, epoch, seq)
    }

    pub fn trim(&mut self, room: &str, now_ms: u64) {
        let kept = self.kept;
        let Some(life) = self.rooms.get_mut(room) else { return };
        loop {
            let rest = &life.chats[life.forgotten..];
            let too_much = rest.len() > kept.messages || rest.iter().map(|chat| chat.bytes).sum::<usize>() > kept.bytes;
            let too_old = rest.first().is_some_and(|chat| chat.time_ms + kept.age_ms < now_ms);
            if !too_much && !too_old {
                return;
            }
            life.forgotten += 1;
        }
    }

    pub fn sweep(&mut self, now_ms: u64) {
        let names: Vec<_> = self.rooms.keys().copied().collect();
        for name in names {
            self.trim(name, now_ms);
            let life = &self.rooms[name];
            let keys = life.keys.values().any(|(_, at_ms)| now_ms < at_ms + self.key_window_ms);
            if life.members.is_empty() && life.forgotten == life.chats.len() && !keys {
                self.over.extend(self.rooms.remove(name));
            }
        }
    }

    pub fn page(&self, room: &str, page: Page, limit: usize) -> (Vec<u64>, bool) {
        let (first, head) = (self.first(room), self.head(room).1);
        let all: Vec<u64> = (first..=head).collect();
        match page {
            Page::After(seq) => {
                let fits: Vec<u64> = all.into_iter().filter(|kept| *kept > seq).collect();
                (fits.iter().copied().take(limit).collect(), fits.len() > limit)
            }
            Page::Latest | Page::Before(_) => {
                let below = if let Page::Before(seq) = page { seq } else { u64::MAX };
                let fits: Vec<u64> = all.into_iter().filter(|kept| *kept < below).collect();
                let skipped = fits.len().saturating_sub(limit);
                (fits[skipped..].to_vec(), skipped > 0)
            }
        }
    }

    /// A chat is what was said under its number.
    pub fn check_chat(&self, epoch: &str, chat: &Value) {
        let life = self.life_of(epoch);
        let seq = usize::try_from(chat["seq"].as_u64().expect("a number")).expect("few");
        let said = &life.chats[seq - 1];
        assert_eq!(chat["content"].to_string(), said.content);
        assert_eq!(chat["from"]["id"], said.user.as_str());
        assert_eq!(chat["time"], said.time_ms);
    }
}
