//! Rooms of probes: beside the named room, seen by nobody in it.

use std::sync::Arc;

use serde_json::Value;

use crate::config;
use crate::hub::room::{Joining, Said, Saying};
use crate::hub::{Hub, MemberId, Room, User};
use crate::limits::SHADOW_HISTORY_MESSAGES;
use crate::protocol::room;
use crate::shard::inbox::{Command, Inbox};

fn user(id: &str) -> User {
    User {
        id: id.into(),
        json: format!(r#"{{"id":"{id}"}}"#).into(),
    }
}

fn member(slot: u32) -> MemberId {
    MemberId {
        slot,
        shard: 0,
        life: 1,
    }
}

struct World {
    hub: Hub,
    inbox: Arc<Inbox>,
}

impl World {
    fn new() -> Self {
        let inbox = Arc::new(Inbox::default());
        Self {
            hub: Hub::new(&config::default_config(), Arc::new([Arc::clone(&inbox)]), None),
            inbox,
        }
    }

    fn join(&self, name: &str, slot: u32, id: &str) -> Arc<Room> {
        let joining = Joining {
            member: member(slot),
            user: &user(id),
            since: None,
            reference: None,
            again: false,
            sees: crate::hub::room::Sees::ALL,
            now_ms: 1_000,
        };
        self.hub.join(name, &joining).unwrap().0
    }

    fn taken(&self) -> Vec<Command> {
        let mut taken = Vec::new();
        self.inbox.take(&mut taken);
        taken
    }
}

fn say(room: &Arc<Room>, slot: u32, id: &str, content: &str) -> Said {
    room.say(&Saying {
        member: member(slot),
        user: &user(id),
        content,
        key: None,
        reference: None,
        trace: None,
        now_ms: 1_000,
    })
}

#[test]
fn a_probe_is_beside_the_room_and_told_its_name() {
    let world = World::new();
    let lobby = world.join("lobby", 0, "ann");
    let shadow = world.join(&room::shadow_of("lobby"), 1, "probe");
    assert!(shadow.is_shadow() && !lobby.is_shadow());
    assert_eq!((shadow.called(), &*shadow.name_json), ("lobby", "\"lobby\""));
    assert_eq!(shadow.key().partition, lobby.key().partition);
    assert!(shadow.key().is_shadow() && !lobby.key().is_shadow());
    let Said::New { seq: 1, members: 1, .. } = say(&shadow, 1, "probe", "\"hi\"") else {
        panic!("the first message of a room of its own")
    };
    for command in world.taken() {
        match command {
            Command::Enter { room, slot, list, .. } => {
                let list: Value = serde_json::from_slice(list.payload()).unwrap();
                let id = ["ann", "probe"][slot as usize];
                assert_eq!(
                    (&list["users"][0]["id"], &list["count"]),
                    (&Value::from(id), &Value::from(1))
                );
                assert_eq!(list["room"], "lobby", "{}", room.name);
            }
            Command::Chat { room, .. } => assert_eq!(room, shadow.id),
            other => panic!("nobody else is told anything: {other:?}"),
        }
    }
    let totals = world.hub.totals();
    assert_eq!((totals.rooms, totals.users, totals.messages), (1, 1, 0));
}

#[test]
fn two_probes_of_a_room_hear_each_other_but_are_not_announced() {
    let world = World::new();
    let name = room::shadow_of("lobby");
    world.join(&name, 0, "one");
    let shadow = world.join(&name, 1, "two");
    say(&shadow, 0, "one", "1");
    assert!(!shadow.leave(member(0), &"one".into(), true, 1_000));
    let presence = |command: &&Command| matches!(command, Command::Presence { .. });
    let taken = world.taken();
    assert_eq!(taken.iter().filter(presence).count(), 0, "{taken:?}");
    let heard = |command: &&Command| matches!(command, Command::Chat { .. });
    assert_eq!(taken.iter().filter(heard).count(), 1);
}

#[test]
fn a_shadow_keeps_little_and_not_for_long() {
    let world = World::new();
    let shadow = world.join(&room::shadow_of("lobby"), 0, "probe");
    for _ in 0..2 * SHADOW_HISTORY_MESSAGES {
        say(&shadow, 0, "probe", "1");
        drop(world.taken());
    }
    assert_eq!(shadow.measure().1, SHADOW_HISTORY_MESSAGES);
    shadow.leave(member(0), &"probe".into(), true, 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(world.hub.sweep(70_000));
    assert!(world.hub.find(&shadow.name).is_none(), "a minute later it is gone");
}
