//! Who says something without being in the room, and what is for users.

use std::sync::Arc;

use serde_json::Value;

use crate::config;
use crate::hub::post::Letter;
use crate::hub::room::{Joining, People, Read, Spoken, Words};
use crate::hub::{Hub, MemberId, User};
use crate::protocol::client::Page;
use crate::protocol::room;
use crate::shard::inbox::{Command, INBOX_COMMANDS_MAX, Inbox, ToUser};

const NOW_MS: u64 = 1_000;

fn user(id: &str) -> User {
    User {
        id: id.into(),
        json: format!(r#"{{"id":"{id}"}}"#).into(),
    }
}

fn hub() -> (Hub, [Arc<Inbox>; 2]) {
    let inboxes = [Arc::new(Inbox::default()), Arc::new(Inbox::default())];
    let all: Arc<[Arc<Inbox>]> = inboxes.to_vec().into();
    (Hub::new(&config::default_config(), all, None), inboxes)
}

fn words<'a>(speaker: &'a User, content: &'a str, key: Option<&'a str>) -> Words<'a> {
    Words {
        user: speaker,
        content,
        key,
        trace: None,
        now_ms: NOW_MS,
    }
}

fn taken(inbox: &Inbox) -> Vec<Command> {
    let mut taken = Vec::new();
    inbox.take(&mut taken);
    taken
}

fn seq(spoken: Spoken) -> (u64, bool) {
    match spoken {
        Spoken::Kept { seq, again, .. } => (seq, again),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_room_that_nobody_is_in_keeps_what_is_said_in_it() {
    let (hub, _) = hub();
    let app = user("app");
    let speak = |content: &str, key| seq(hub.speak("attic", &words(&app, content, key)).expect("no limit"));
    assert_eq!(speak("1", None), (1, false));
    assert_eq!(speak("2", Some("k")), (2, false));
    assert_eq!(speak("3", Some("k")), (2, true), "the first content wins");
    let Ok(Read::Now(page)) = hub.read("attic", Page::Latest, 10, NOW_MS) else {
        panic!("a page")
    };
    let page: Value = serde_json::from_slice(page.payload()).expect("JSON");
    let contents: Vec<&Value> = (page["messages"].as_array().into_iter().flatten())
        .map(|chat| &chat["content"])
        .collect();
    assert_eq!(contents, [1, 2]);
    let room = hub.find("attic").expect("it is kept");
    assert_eq!(room.people(None, 10, NOW_MS).map(|people| people.count), Some(0));
}

#[test]
fn members_hear_it_in_order_with_their_own() {
    let (hub, inboxes) = hub();
    let joining = Joining {
        member: MemberId {
            slot: 0,
            shard: 1,
            life: 1,
        },
        user: &user("ann"),
        since: None,
        reference: None,
        again: false,
        sees: crate::hub::room::Sees::ALL,
        now_ms: NOW_MS,
    };
    hub.join("lobby", &joining).expect("no limit");
    hub.speak("lobby", &words(&user("app"), "1", None)).expect("no limit");
    let chats = |command: &Command| matches!(command, Command::Chat { .. });
    assert!(!taken(&inboxes[0]).iter().any(chats), "nobody is there");
    assert!(taken(&inboxes[1]).iter().any(chats));
}

#[test]
fn a_letter_goes_to_every_shard_once_and_is_not_kept() {
    let (hub, inboxes) = hub();
    let content = serde_json::value::RawValue::from_string("17".to_owned()).expect("JSON");
    let sealed = Letter::message("ann", None, &content).seal();
    let app = user("app");
    assert_eq!(seq(hub.post().speak(&words(&app, &sealed, Some("ann k")))), (1, false));
    assert_eq!(seq(hub.post().speak(&words(&app, &sealed, Some("ann k")))), (1, true));
    for inbox in &inboxes {
        let taken = taken(inbox);
        assert!(
            matches!(&taken[..], [Command::ToUser(ToUser::Message { user, .. })] if &**user == "ann"),
            "{taken:?}"
        );
    }
    assert_eq!(hub.post().measure(), (0, 0, 0));
    let totals = hub.totals();
    assert_eq!((totals.rooms, totals.messages), (0, 0), "it is no room of anybody's");
    hub.visit(|room| panic!("{room:?}"));
}

#[test]
fn the_post_waits_for_a_shard_that_is_far_behind() {
    let (hub, inboxes) = hub();
    for slot in 0..u32::try_from(INBOX_COMMANDS_MAX).expect("a number") {
        inboxes[1].push(Command::Gone { slot });
    }
    let sealed = Letter::leave("ann", "lobby").seal();
    let spoken = hub.post().speak(&words(&user("app"), &sealed, None));
    assert!(matches!(spoken, Spoken::Unavailable), "{spoken:?}");
}

#[test]
fn no_name_that_is_checked_is_the_post_s() {
    assert!(room::check(room::POST).is_err() && room::is_shadow(room::POST));
    let (hub, _) = hub();
    assert_eq!(hub.find(room::POST).map(|room| room.id), Some(hub.post().id));
}

#[test]
fn people_come_in_pages_in_the_order_of_their_ids() {
    let users: Vec<(Arc<str>, Arc<str>)> = (["c", "a", "e", "b", "d"].iter())
        .map(|id| (Arc::from(*id), Arc::from(format!("<{id}>"))))
        .collect();
    let page = |after, limit| {
        let people = People::page(users.iter().map(|(id, json)| (id, json)), after, limit, 7);
        assert_eq!((people.count, people.as_of_ms), (5, 7));
        let ids: String = people.users.iter().map(|(id, _)| &**id).collect();
        (ids, people.more)
    };
    assert_eq!(page(None, 2), ("ab".to_owned(), true));
    assert_eq!(page(Some("b"), 2), ("cd".to_owned(), true));
    assert_eq!(page(Some("d"), 2), ("e".to_owned(), false));
    assert_eq!(page(None, 5), ("abcde".to_owned(), false));
    assert_eq!(page(Some("x"), 5), (String::new(), false));
}
