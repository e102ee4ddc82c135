//! Against a real server.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::super::contract::{
    Backplane as _, Change, Draft, Failed, Incarnation, OutboxAnswer, OutboxAsk, OutboxDone, OutboxPage, OutboxPiece,
    Outcome, Presented, Refusal, Renewal, RoomKey, SessionChange,
};
use super::super::super::envelope;
use super::super::super::outbox::record::Record;
use super::super::super::outbox::{Backlog, Event, Hook, Outboxes, Place};
use super::super::child::{Node, Server};
use super::*;

const LEASE: Duration = Duration::from_secs(600);
const PIECE: OutboxPiece = OutboxPiece {
    events: 100,
    bytes: 1 << 20,
    hold: Duration::from_secs(600),
};

fn hook(name: &str, events: &[Event], rooms: &[&str], events_max: usize) -> Hook {
    let rooms: Vec<_> = rooms.iter().map(|room| (*room).to_owned()).collect();
    Hook::new(name, events, &rooms, events_max, 1 << 20)
}

async fn node(server: &Server, hooks: Vec<Hook>) -> Node {
    let node = server.engine().await;
    node.engine.clone().keep_outboxes(Arc::new(Outboxes::new("a", hooks)));
    node
}

async fn begin(node: &Node, word: &str) -> Incarnation {
    let incarnation: Incarnation = word.into();
    let renewal = node.renew_lease(&incarnation, true, LEASE).await;
    assert!(matches!(renewal, Ok(Renewal::Alive { .. })), "{renewal:?}");
    incarnation
}

fn room(name: &str) -> RoomKey {
    RoomKey::new(name.into())
}

fn change(room_name: &str, user: &str, enters: bool) -> Change {
    Change {
        room: room(room_name),
        user: user.into(),
        json: format!(r#"{{"id":"{user}"}}"#).into(),
        enters,
    }
}

async fn say(node: &Node, name: &str, key: Option<&str>, contents: &[&str]) {
    let drafts: Vec<_> = contents
        .iter()
        .map(|content| Draft {
            user: "ann".into(),
            key: key.map(Into::into),
            envelope: envelope::seal(r#"{"id":"ann"}"#, content, None),
        })
        .collect();
    let outcomes = node.append(&room(name), &drafts, Duration::from_secs(20)).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::New(_) | Outcome::Again(_))),
        "{outcomes:?}"
    );
}

fn place(name: &str, hook: usize) -> Place {
    Place {
        partition: room(name).partition,
        hook,
    }
}

async fn ask(node: &Node, who: &str, place: Place, instead_of: Option<&str>, piece: OutboxPiece) -> OutboxAnswer {
    let asks = [OutboxAsk {
        place,
        instead_of: instead_of.map(Into::into),
    }];
    let mut answers = node.read_outboxes(&who.into(), &asks, piece).await.expect("answers");
    answers.pop().expect("one").expect("read")
}

async fn read(node: &Node, who: &str, place: Place) -> OutboxPage {
    match ask(node, who, place, None, PIECE).await {
        OutboxAnswer::Page(page) => page,
        OutboxAnswer::Busy(holder) => panic!("{holder} has it"),
    }
}

async fn done(node: &Node, place: Place, page: &OutboxPage, count: u64, release: bool) -> bool {
    let done = [OutboxDone {
        place,
        lease: Arc::clone(&page.lease),
        upto: page.first + count - 1,
        release,
    }];
    let mut done = node.finish_outboxes(&done).await.expect("answers");
    done.pop().expect("one").expect("done")
}

/// As the backend reads them, without ids and times.
fn events(page: &OutboxPage) -> Vec<Json> {
    let read = |record: &bytes::Bytes| {
        let mut out = String::new();
        let record = Record::parse(record).expect("a record");
        record.write_json(&mut out).expect("JSON");
        let mut event: Json = serde_json::from_str(&out).expect("JSON");
        let event_members = event.as_object_mut().expect("an object");
        for stamped in ["id", "time", "epoch", "since", "until", "duration_ms"] {
            event_members.remove(stamped);
        }
        event
    };
    page.records.iter().map(read).collect()
}

fn names(page: &OutboxPage) -> Vec<String> {
    events(page)
        .iter()
        .map(|event| event["event"].as_str().expect("a name").to_owned())
        .collect()
}

#[tokio::test]
async fn what_happens_in_a_room_is_told_in_its_order() {
    let server = Server::start();
    let hooks = vec![
        hook("all", &Event::ALL, &[], 100),
        hook("some", &[Event::Left, Event::Chat], &["team-*"], 100),
    ];
    let a = node(&server, hooks).await;
    let one = begin(&a, "one").await;
    a.move_users(&one, &[change("lobby", "ann", true)]).await.expect("in");
    say(&a, "lobby", Some("k 1"), &["1"]).await;
    say(&a, "lobby", Some("k 1"), &["1"]).await;
    say(&a, "lobby", None, &["2", "3"]).await;
    a.move_users(&one, &[change("lobby", "ann", false)]).await.expect("out");
    say(&a, "\u{1}canary", None, &["4"]).await;

    let page = read(&a, "one", place("lobby", 0)).await;
    let ann = json!({"id": "ann"});
    assert_eq!(
        events(&page),
        [
            json!({"event": "join", "node": "a", "room": "lobby", "user": ann}),
            json!({"event": "chat", "node": "a", "room": "lobby", "user": ann, "seq": 1, "content": 1, "key": "k 1"}),
            json!({"event": "chat", "node": "a", "room": "lobby", "user": ann, "seq": 2, "content": 2}),
            json!({"event": "chat", "node": "a", "room": "lobby", "user": ann, "seq": 3, "content": 3}),
            json!({"event": "left", "node": "a", "room": "lobby", "user": ann}),
        ]
    );
    let ids: std::collections::HashSet<_> = page
        .records
        .iter()
        .map(|record| Record::parse(record).expect("a record").id.to_owned())
        .collect();
    assert_eq!(ids.len(), 5, "ids are never used twice");
    assert!(read(&a, "one", place("lobby", 1)).await.records.is_empty());

    a.move_users(&one, &[change("team-7", "ann", true), change("team-7", "ann", false)])
        .await
        .expect("in and out");
    say(&a, "team-7", None, &["5"]).await;
    assert_eq!(
        names(&read(&a, "one", place("team-7", 0)).await),
        ["join", "left", "chat"]
    );
    assert_eq!(names(&read(&a, "one", place("team-7", 1)).await), ["left", "chat"]);
    let all: Vec<u16> = (0..1_024).collect();
    let mut waiting = a.waiting_outboxes(&all).await.expect("waiting");
    waiting.sort_by_key(|(place, _)| *place);
    let mut expected = vec![(place("lobby", 0), 5), (place("team-7", 0), 3), (place("team-7", 1), 2)];
    expected.sort();
    let found: Vec<_> = waiting
        .iter()
        .map(|(place, backlog)| (*place, backlog.events))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn who_has_lost_an_outbox_moves_its_cursor_no_more() {
    let server = Server::start();
    let a = node(&server, vec![hook("all", &Event::ALL, &[], 100)]).await;
    let lobby = place("lobby", 0);
    say(&a, "lobby", None, &["1", "2", "3"]).await;
    let first = read(&a, "one", lobby).await;
    assert_eq!((first.first, first.records.len()), (1, 3));
    assert_eq!(
        ask(&a, "two", lobby, None, PIECE).await,
        OutboxAnswer::Busy("one".into())
    );
    let again = read(&a, "one", lobby).await;
    assert_eq!((again.first, &again.records), (1, &first.records), "it may look again");
    assert!(
        !done(&a, lobby, &first, 1, false).await,
        "only who looked last knows what lies there"
    );
    let first = again;
    assert!(done(&a, lobby, &first, 1, false).await);

    let OutboxAnswer::Page(taken) = ask(&a, "two", lobby, Some("one"), PIECE).await else {
        panic!("the dead have nothing in hand");
    };
    assert_eq!((taken.first, taken.records.len()), (2, 2));
    assert!(!done(&a, lobby, &first, 3, false).await, "it has woken up too late");
    assert!(done(&a, lobby, &taken, 1, true).await);
    let last = read(&a, "three", lobby).await;
    assert_eq!(
        (last.first, last.records.len()),
        (3, 1),
        "who lets go leaves it to the next"
    );
    assert!(done(&a, lobby, &last, 1, false).await);
    assert!(!done(&a, lobby, &taken, 2, false).await);
    let left = server.ask("KEYS conclave:1:0:{*}[op]:*").await;
    assert_eq!(left, Value::Array(vec![]), "nothing is left of what was told");

    say(&a, "lobby", None, &["4"]).await;
    assert!(
        !done(&a, lobby, &last, 1, false).await,
        "an old lease is none, though numbers begin anew"
    );
    let brief = OutboxPiece {
        hold: Duration::from_millis(1),
        ..PIECE
    };
    assert!(matches!(
        ask(&a, "one", lobby, None, brief).await,
        OutboxAnswer::Page(_)
    ));
    let over = async {
        while matches!(ask(&a, "two", lobby, None, PIECE).await, OutboxAnswer::Busy(_)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), over)
        .await
        .expect("its time is over");
}

#[tokio::test]
async fn what_finds_no_room_is_counted_in_its_place() {
    let server = Server::start();
    let a = node(&server, vec![hook("all", &[Event::Chat], &[], 5)]).await;
    let lobby = place("lobby", 0);
    say(&a, "lobby", None, &["1", "2", "3"]).await;
    say(&a, "lobby", None, &["4", "5", "6", "7"]).await;
    say(&a, "lobby", None, &["8"]).await;
    let small = OutboxPiece { events: 5, ..PIECE };
    let OutboxAnswer::Page(page) = ask(&a, "one", lobby, None, small).await else {
        panic!("nobody else is here");
    };
    assert_eq!(page.records.len(), 5);
    assert!(done(&a, lobby, &page, 3, false).await);
    say(&a, "lobby", None, &["9"]).await;
    let page = read(&a, "one", lobby).await;
    assert_eq!(names(&page), ["chat", "chat", "lost", "chat"]);
    assert_eq!(
        (&events(&page)[2]["count"], &events(&page)[3]["content"]),
        (&json!(3), &json!(9))
    );

    say(&a, "lobby", None, &["10", "11", "12"]).await;
    assert!(done(&a, lobby, &page, 4, false).await);
    let page = read(&a, "one", lobby).await;
    assert_eq!(names(&page), ["chat", "lost"], "nothing follows that would say it");
    assert_eq!(events(&page)[1]["count"], 2);
    assert!(done(&a, lobby, &page, 2, false).await);
    let left = server.ask("KEYS conclave:1:0:{*}[op]:*").await;
    assert_eq!(left, Value::Array(vec![]));
}

#[tokio::test]
async fn a_hook_for_which_too_much_waits_everywhere_takes_no_more() {
    let server = Server::start();
    let hooks = vec![
        hook("all", &[Event::Chat], &[], 3),
        hook("other", &[Event::Chat], &[], 100),
    ];
    let a = node(&server, hooks).await;
    let one = begin(&a, "one").await;
    for name in ["r1", "r2", "r3"] {
        say(&a, name, None, &["1"]).await;
    }
    let own = [Backlog { events: 4, bytes: 300 }, Backlog { events: 4, bytes: 300 }];
    let reports = a.report_backlogs(&one, &own).await.expect("reported");
    assert_eq!(reports, [(one.clone(), own.to_vec())]);
    for name in ["r1", "r4"] {
        say(&a, name, None, &["2", "3"]).await;
    }
    assert_eq!(names(&read(&a, "one", place("r1", 0)).await), ["chat", "lost"]);
    let page = read(&a, "one", place("r4", 0)).await;
    assert_eq!(
        (names(&page), &events(&page)[0]["count"]),
        (vec!["lost".to_owned()], &json!(2))
    );
    assert_eq!(
        names(&read(&a, "one", place("r4", 1)).await),
        ["chat", "chat"],
        "others go on"
    );
    a.report_backlogs(&one, &[Backlog::default(); 2])
        .await
        .expect("reported");
    say(&a, "r4", None, &["4"]).await;
    assert_eq!(names(&read(&a, "one", place("r4", 0)).await), ["lost", "chat"]);
}

#[tokio::test]
async fn what_others_wrote_hides_no_outbox() {
    let server = Server::start();
    let hooks = vec![hook("all", &Event::ALL, &[], 100), hook("other", &Event::ALL, &[], 100)];
    let a = node(&server, hooks).await;
    let lobby = place("lobby", 1);
    say(&a, "lobby", None, &["1"]).await;
    let state = a.keys.outbox_state(lobby.partition, "all");
    let state = String::from_utf8(state).expect("text");
    server.ask(&format!("SET {state} mine")).await;
    let waiting = a.waiting_outboxes(&[lobby.partition]).await.expect("an answer");
    let found: Vec<_> = waiting.iter().map(|(place, _)| *place).collect();
    assert_eq!(found, [lobby]);
}

#[tokio::test]
async fn a_full_redis_can_be_emptied() {
    let server = Server::start();
    let a = node(&server, vec![hook("all", &Event::ALL, &[], 100)]).await;
    let lobby = place("lobby", 0);
    say(&a, "lobby", None, &["1", "2"]).await;
    server.ask("CONFIG SET maxmemory 1").await;
    let page = read(&a, "one", lobby).await;
    assert_eq!(names(&page), ["chat", "chat"]);
    assert!(done(&a, lobby, &page, 1, false).await);
    assert_eq!(read(&a, "one", lobby).await.first, 2);
}

fn session(name: &str, begins: bool, outboxes: &Outboxes) -> SessionChange {
    let event = if begins { Event::Open } else { Event::Close };
    SessionChange {
        user: "ann".into(),
        session: name.into(),
        turn: if begins {
            SessionTurn::Begins {
                end: format!(r#""event":"close","session":"{name}","code":1006"#).into(),
                since_ms: 5,
            }
        } else {
            SessionTurn::Ends
        },
        hooks: outboxes.wanting(event, ""),
        record: format!(r#"s e-{name} 5 "event":"{}","session":"{name}""#, event.as_str()).into(),
    }
}

async fn changed(node: &Node, now: &Incarnation, before: &[Incarnation], changes: &[SessionChange]) -> Presented {
    let outcomes = node.change_sessions(now, before, changes).await.expect("answers");
    assert_eq!(outcomes.len(), changes.len());
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    outcomes[0].expect("an answer")
}

#[tokio::test]
async fn ends_of_sessions_are_told_also_when_their_node_dies() {
    let server = Server::start();
    let a = node(&server, vec![hook("all", &Event::ALL, &[], 100)]).await;
    let (one, two) = (begin(&a, "one").await, begin(&a, "two").await);
    let outboxes = Outboxes::new("a", vec![hook("all", &Event::ALL, &[], 100)]);
    let at = Place {
        partition: super::super::super::partition::of("ann"),
        hook: 0,
    };
    let begun = [session("s-1", true, &outboxes), session("s-2", true, &outboxes)];
    assert_eq!(changed(&a, &one, &[], &begun).await, Presented::Done);
    assert_eq!(changed(&a, &one, &[], &begun).await, Presented::Done);
    let ended = [session("s-1", false, &outboxes)];
    assert_eq!(changed(&a, &one, &[], &ended).await, Presented::Done);
    assert_eq!(changed(&a, &one, &[], &ended).await, Presented::Done);
    let page = read(&a, "two", at).await;
    assert_eq!(
        names(&page),
        ["open", "open", "close", "close"],
        "an end that no index has is told all the same"
    );
    assert!(done(&a, at, &page, 4, false).await);

    a.move_users(&one, &[change("lobby", "bob", true)]).await.expect("in");
    assert_eq!(a.lapse(true, std::slice::from_ref(&one)).await, Ok(vec![false]));
    assert_eq!(a.bury(&one).await, Ok(true));
    let page = read(&a, "two", at).await;
    assert_eq!(
        events(&page),
        [json!({"event": "close", "session": "s-2", "code": 1006})]
    );
    assert_eq!(names(&read(&a, "two", place("lobby", 0)).await), ["join", "left"]);
    assert_eq!(changed(&a, &one, &[], &ended).await, Presented::Fenced);
    assert_eq!(changed(&a, &two, &[], &begun[1..]).await, Presented::Done);
    a.give_back(&two).await.expect("resigned");
    assert_eq!(names(&read(&a, "two", at).await), ["close", "open", "close"]);
    let left = server.ask("KEYS conclave:1:0:{*}[ns]:*").await;
    assert_eq!(left, Value::Array(vec![]), "nothing is left of either");
}

#[tokio::test]
async fn sessions_move_to_the_next_life_of_their_node() {
    let server = Server::start();
    let a = node(&server, vec![hook("all", &Event::ALL, &[], 100)]).await;
    let (one, two) = (begin(&a, "one").await, begin(&a, "two").await);
    let outboxes = Outboxes::new("a", vec![hook("all", &Event::ALL, &[], 100)]);
    let at = Place {
        partition: super::super::super::partition::of("ann"),
        hook: 0,
    };
    let begun = ["s-1", "s-2", "s-3"].map(|name| session(name, true, &outboxes));
    let before = std::slice::from_ref(&one);
    assert_eq!(changed(&a, &one, &[], &begun[..2]).await, Presented::Done);
    assert_eq!(changed(&a, &two, before, &begun[1..]).await, Presented::Done);
    let ended = [session("s-1", false, &outboxes)];
    assert_eq!(changed(&a, &two, before, &ended).await, Presented::Done);
    assert_eq!(a.lapse(true, std::slice::from_ref(&one)).await, Ok(vec![false]));
    assert_eq!(a.bury(&one).await, Ok(true));
    let page = read(&a, "two", at).await;
    assert_eq!(
        names(&page),
        ["open", "open", "open", "close"],
        "nobody begins twice, and none has died"
    );
    let left = server.ask("KEYS conclave:1:0:{*}[ns]:one").await;
    assert_eq!(left, Value::Array(vec![]), "nothing is left of the first");
}

#[tokio::test]
async fn a_full_redis_takes_no_session_and_says_so() {
    let server = Server::start();
    let opens = || vec![hook("opens", &[Event::Open], &[], 100)];
    let a = node(&server, opens()).await;
    let one = begin(&a, "one").await;
    let begun = [session("s-1", true, &Outboxes::new("a", opens()))];
    server.ask("CONFIG SET maxmemory 1").await;
    let outcomes = a.change_sessions(&one, &[], &begun).await.expect("an answer");
    assert!(outcomes[0].is_err(), "{outcomes:?}");
    server.ask("CONFIG SET maxmemory 0").await;
    assert_eq!(changed(&a, &one, &[], &begun).await, Presented::Done);
    let at = Place {
        partition: super::super::super::partition::of("ann"),
        hook: 0,
    };
    assert_eq!(names(&read(&a, "two", at).await), ["open"]);
}

/// What Redis did since it started, by command.
async fn done_commands(server: &Server) -> Vec<String> {
    let Value::VerbatimString { text, .. } = server.ask("INFO commandstats").await else {
        panic!("text");
    };
    let counted = [
        "get", "hget", "hmget", "hset", "rpush", "llen", "exists", "spublish", "pexpire", "hexists",
    ];
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let (calls, _) = rest.split_once(',')?;
        counted.contains(&name).then(|| format!("{name} {calls}"))
    });
    lines.collect()
}

#[tokio::test]
async fn without_hooks_scripts_do_no_more_than_before() {
    // As they were before there were outboxes.
    let expected = [
        "exists 2",
        "get 1",
        "hexists 2",
        "hget 6",
        "hmget 1",
        "hset 7",
        "llen 2",
        "pexpire 2",
        "rpush 1",
        "spublish 3",
    ];
    // The second has a hook, for other rooms.
    for hooks in [vec![], vec![hook("some", &Event::ALL, &["other"], 100)]] {
        let server = Server::start();
        let a = node(&server, hooks).await;
        let one = begin(&a, "one").await;
        let mut found = vec![];
        // A canary, which comes once a second, counts too.
        for attempt in 0..50 {
            let name = format!("room-{attempt}");
            server.ask("CONFIG RESETSTAT").await;
            say(&a, &name, Some("k"), &["1"]).await;
            a.move_users(&one, &[change(&name, "ann", true)]).await.expect("in");
            a.move_users(&one, &[change(&name, "ann", false)]).await.expect("out");
            found = done_commands(&server).await;
            found.sort();
            if found == expected {
                break;
            }
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn nobody_is_told_where_nobody_asked_for_it() {
    let server = Server::start();
    let a = server.engine().await;
    assert_eq!(a.waiting_outboxes(&[1]).await, Err(Failed::Refused(Refusal::Forbidden)));
}
