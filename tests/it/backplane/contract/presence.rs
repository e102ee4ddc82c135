//! Who is in a room, on all nodes: every coming and going is told once.

use conclave::backplane::contract::{Change, Incarnation};

use super::super::engines::Engine;
use super::super::peer::{Peer, enters, leaves, life, room, user_json};

super::promises! {
    a_user_on_several_nodes_comes_once_and_leaves_once
    changes_are_idempotent_and_in_order
    versions_chain_and_are_those_of_heads
    odd_users_are_listed_as_they_are
    what_is_held_is_made_to_be_so
    two_nodes_that_take_turns_agree
}

async fn attached(
    engine: &Engine,
    name: &str,
) -> ([Peer; 2], [Incarnation; 2], conclave::backplane::contract::RoomKey) {
    let pair = engine.pair().await;
    let (room, lives) = (room(name), [life(), life()]);
    for (peer, life) in pair.iter().zip(&lives) {
        super::lives::begin(peer, life).await;
        peer.attach(&room).await.unwrap();
    }
    (pair, lives, room)
}

async fn a_user_on_several_nodes_comes_once_and_leaves_once(engine: &Engine) {
    let ([a, b], [one, two], lobby) = attached(engine, "lobby").await;
    a.moves(&one, &[enters(&lobby, "ann")]).await;
    b.moves(&two, &[enters(&lobby, "ann")]).await;
    assert_eq!(a.names(&lobby).await, ["ann"]);
    let opened = b.attach(&lobby).await.unwrap();
    assert_eq!(opened.users.users, [("ann".into(), user_json("ann"))]);
    a.moves(&one, &[leaves(&lobby, "ann")]).await;
    assert_eq!(b.names(&lobby).await, ["ann"], "the other node holds her");
    b.moves(&two, &[leaves(&lobby, "ann")]).await;
    assert!(a.names(&lobby).await.is_empty());
    // The last one shows that nothing else was on its way.
    b.moves(&two, &[enters(&lobby, "bob")]).await;
    for peer in [&a, &b] {
        peer.heard.presence_is(&lobby, &["+ann", "-ann", "+bob"]).await;
        for event in peer.heard.read(|heard| heard.transitions(&lobby)) {
            assert_eq!(
                event.json,
                user_json(&event.user),
                "they are told with their names, also when they leave"
            );
            assert!(event.time_ms.abs_diff(conclave::runtime::now_ms()) < 60_000);
        }
    }
}

async fn changes_are_idempotent_and_in_order(engine: &Engine) {
    let ([a, b], [one, two], lobby) = attached(engine, "lobby").await;
    let version = async || b.users(&lobby).await.unwrap().version;
    let before = version().await;
    a.moves(&one, &[leaves(&lobby, "nobody")]).await;
    assert_eq!(version().await, before);
    for _ in 0..3 {
        a.moves(&one, &[enters(&lobby, "ann"), enters(&lobby, "ann")]).await;
    }
    let inside = version().await;
    assert_ne!(inside, before);
    b.moves(&two, &[leaves(&lobby, "ann")]).await;
    a.moves(&one, &[]).await;
    assert_eq!(version().await, inside, "only who holds a user can let go");
    for _ in 0..3 {
        a.moves(&one, &[leaves(&lobby, "ann")]).await;
    }
    let in_and_out = [
        enters(&lobby, "eve"),
        leaves(&lobby, "eve"),
        enters(&lobby, "eve"),
        enters(&lobby, "bob"),
    ];
    a.moves(&one, &in_and_out).await;
    assert_eq!(b.names(&lobby).await, ["bob", "eve"]);
    if !b.capabilities().fenced_presence {
        return; // Such engines may leave out what was over before anybody could see it.
    }
    for peer in [&a, &b] {
        peer.heard
            .presence_is(&lobby, &["+ann", "-ann", "+eve", "-eve", "+eve", "+bob"])
            .await;
    }
}

async fn versions_chain_and_are_those_of_heads(engine: &Engine) {
    let ([a, b], [one, two], lobby) = attached(engine, "lobby").await;
    if !a.capabilities().fenced_presence {
        return;
    }
    let mut version = a.users(&lobby).await.unwrap().version;
    for at in 0..5 {
        let user = format!("u{at}");
        a.moves(&one, &[enters(&lobby, &user)]).await;
        b.moves(&two, &[enters(&lobby, &format!("other {user}"))]).await;
        a.moves(&one, &[leaves(&lobby, &user)]).await;
    }
    let last = b.users(&lobby).await.unwrap().version;
    let heads = a.heads(std::slice::from_ref(&lobby)).await.unwrap();
    assert_eq!(heads[0].as_ref().expect("it is there").presence, last);
    let events = b
        .heard
        .until("all of it", |heard| {
            let events = heard.transitions(&lobby);
            (events.len() == 15).then_some(events)
        })
        .await;
    for event in &events {
        assert_eq!(event.follows, version, "{events:#?}");
        assert_ne!(event.version, version);
        version = event.version;
    }
    assert_eq!(version, last);
}

async fn odd_users_are_listed_as_they_are(engine: &Engine) {
    let ([a, b], [one, two], _) = attached(engine, "lobby").await;
    let odd_room = room("}x {a} ü:b");
    b.attach(&odd_room).await.unwrap();
    let longest = "u".repeat(256);
    let mut names = [
        "ann", "Ann", "a b", "a:b", "{u}", "}", "ü 🦀", "1", "\"", "\\", "a.b", "*", ">", "-", &longest,
    ];
    let changes: Vec<_> = names.iter().map(|user| enters(&odd_room, user)).collect();
    a.moves(&one, &changes).await;
    names.sort_unstable();
    assert_eq!(b.names(&odd_room).await, names);
    for (user, json) in b.users(&odd_room).await.unwrap().users {
        assert_eq!(json, user_json(&user));
    }
    b.moves(&two, &[enters(&odd_room, "a b")]).await;
    let changes: Vec<_> = names.iter().map(|user| leaves(&odd_room, user)).collect();
    a.moves(&one, &changes).await;
    assert_eq!(b.names(&odd_room).await, ["a b"]);
    b.moves(&two, &[leaves(&odd_room, "a b")]).await;
    b.heard
        .until("all to have left", |heard| {
            let words = heard.came_and_went(&odd_room);
            (words.len() == 2 * names.len()).then_some(())
        })
        .await;
}

/// Lost enters and lost leaves heal, whatever partition they are in.
async fn what_is_held_is_made_to_be_so(engine: &Engine) {
    let ([a, b], [one, two], lobby) = attached(engine, "lobby").await;
    let rooms: Vec<_> = (0..30).map(|at| room(&format!("room {at}"))).collect();
    let all: Vec<Change> = rooms.iter().map(|room| enters(room, "ann")).collect();
    a.moves(&one, &all[..20]).await;
    a.moves(&one, &[enters(&lobby, "ann"), enters(&lobby, "ghost")]).await;
    b.moves(
        &two,
        &[enters(&lobby, "bob"), enters(&lobby, "ghost"), enters(&rooms[0], "bob")],
    )
    .await;
    // Ten enters of the middle are known, ten leaves and ten enters were lost.
    let mut held = all[10..].to_vec();
    held.push(enters(&lobby, "ann"));
    held.push(enters(&lobby, "eve"));
    for _ in 0..2 {
        let presented = a.assert_held(&one, &held).await.expect("an answer");
        assert_eq!(presented, conclave::backplane::contract::Presented::Done);
    }
    assert_eq!(b.names(&rooms[0]).await, ["bob"]);
    for (at, room) in rooms.iter().enumerate().skip(1) {
        let wanted: &[&str] = if at < 10 { &[] } else { &["ann"] };
        assert_eq!(b.names(room).await, wanted, "room {at}");
    }
    assert_eq!(b.names(&lobby).await, ["ann", "bob", "eve", "ghost"]);
    b.moves(&two, &[leaves(&lobby, "ghost")]).await;
    for peer in [&a, &b] {
        peer.heard
            .presence_is(&lobby, &["+ann", "+ghost", "+bob", "+eve", "-ghost"])
            .await;
    }
    a.assert_held(&one, &[]).await.expect("an answer");
    assert_eq!(b.names(&lobby).await, ["bob"]);
    assert!(b.names(&rooms[29]).await.is_empty());
}

/// Two nodes move the same user at once: comings and goings alternate, and the end is what both hold.
async fn two_nodes_that_take_turns_agree(engine: &Engine) {
    let ([a, b], [one, two], lobby) = attached(engine, "lobby").await;
    let turns = async |peer: &Peer, life: &Incarnation| {
        for _ in 0..40 {
            peer.moves(life, &[enters(&lobby, "ann")]).await;
            peer.moves(life, &[leaves(&lobby, "ann")]).await;
        }
    };
    tokio::join!(turns(&a, &one), turns(&b, &two));
    assert!(a.names(&lobby).await.is_empty());
    b.moves(&two, &[enters(&lobby, "end")]).await;
    for peer in [&a, &b] {
        let words = peer
            .heard
            .until("the end", |heard| {
                let words = heard.came_and_went(&lobby);
                (words.last().map(String::as_str) == Some("+end")).then_some(words)
            })
            .await;
        let ann: Vec<_> = words.iter().filter(|word| word.ends_with("ann")).collect();
        for (at, word) in ann.iter().enumerate() {
            assert_eq!(word.starts_with('+'), at % 2 == 0, "{words:?}");
        }
        assert_eq!(ann.len() % 2, 0, "{words:?}");
    }
}
