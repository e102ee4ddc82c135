//! A key makes a retry harmless.

use std::time::Duration;

use conclave::backplane::contract::{Outcome, Position};

use super::super::engines::Engine;
use super::super::peer::{Peer, draft, eventually, keyed, room, said};

super::promises! {
    a_retry_gets_the_place_of_the_first_which_wins
    a_key_belongs_to_its_user_and_room
    a_key_holds_within_a_batch
    of_two_nodes_that_say_the_same_one_wins
    a_key_is_forgotten_after_its_window
}

fn new(outcome: Outcome) -> Position {
    match outcome {
        Outcome::New(place) => place,
        other => panic!("{other:?}"),
    }
}

async fn content(peer: &Peer, name: &str) -> Vec<String> {
    let page = peer.before(&room(name), u64::MAX, 128).await.unwrap();
    page.entries.iter().map(said).collect()
}

async fn a_retry_gets_the_place_of_the_first_which_wins(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    let first = new(a.publish_one(&lobby, keyed("ann", "k", "first")).await);
    for (peer, other) in [(&a, "first"), (&b, "first"), (&b, "other")] {
        let again = peer.publish_one(&lobby, keyed("ann", "k", other)).await;
        assert_eq!(again, Outcome::Again(first.clone()));
    }
    // Among new ones, which keep their order.
    let batch = [draft("ann", "one"), keyed("ann", "k", "other"), draft("ann", "two")];
    let outcomes = b.publish_all(&lobby, &batch).await;
    assert_eq!(outcomes[1], Outcome::Again(first));
    assert_eq!(content(&a, "lobby").await, ["first", "one", "two"]);
}

async fn a_key_belongs_to_its_user_and_room(engine: &Engine) {
    let [a, _b] = engine.pair().await;
    let longest = "k".repeat(64);
    // None of these is any other, however they are joined.
    let drafts = [
        ("lobby", "ann", "k"),
        ("lobby", "bob", "k"),
        ("hall", "ann", "k"),
        ("lobby", "ann", "K"),
        ("lobby", "a", "nn:k"),
        ("lobby", "a:nn", "k"),
        ("lobby", "a nn", "k"),
        ("lobby", "a", "nn k"),
        ("lobby", "ann", "{k}"),
        ("lobby", "ann", "ü 🦀"),
        ("lobby", "ann", "-"),
        ("lobby", "ann", &longest),
    ];
    let mut places = Vec::new();
    for (name, user, key) in drafts {
        let outcome = a.publish_one(&room(name), keyed(user, key, "x")).await;
        assert!(matches!(outcome, Outcome::New(_)), "{name} {user} {key}: {outcome:?}");
        places.push(new(outcome));
    }
    for ((name, user, key), place) in drafts.into_iter().zip(places) {
        let again = a.publish_one(&room(name), keyed(user, key, "y")).await;
        assert_eq!(again, Outcome::Again(place), "{name} {user} {key}");
    }
}

/// A client that is in a hurry tries again before the first try has left the node.
async fn a_key_holds_within_a_batch(engine: &Engine) {
    let [a, _b] = engine.pair().await;
    let lobby = room("lobby");
    let batch = [
        keyed("ann", "k", "first"),
        draft("ann", "between"),
        keyed("ann", "k", "second"),
        keyed("bob", "k", "of bob"),
    ];
    let outcomes = a.publish_all(&lobby, &batch).await;
    let first = new(outcomes[0].clone());
    assert_eq!(outcomes[2], Outcome::Again(first));
    assert_eq!(content(&a, "lobby").await, ["first", "between", "of bob"]);
}

async fn of_two_nodes_that_say_the_same_one_wins(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    for round in 0..20 {
        let key = format!("k{round}");
        let (one, other) = tokio::join!(
            a.publish_one(&lobby, keyed("ann", &key, &key)),
            b.publish_one(&lobby, keyed("ann", &key, &key)),
        );
        match (one, other) {
            (Outcome::New(new), Outcome::Again(again)) | (Outcome::Again(again), Outcome::New(new)) => {
                assert_eq!(new, again);
            }
            other => panic!("{other:?}"),
        }
    }
    let wanted: Vec<_> = (0..20).map(|round| format!("k{round}")).collect();
    assert_eq!(content(&a, "lobby").await, wanted);
}

/// Tries do not make the window longer, or who tries for ever would never be heard.
async fn a_key_is_forgotten_after_its_window(engine: &Engine) {
    let window = Duration::from_secs(1);
    let [a, b] = engine.pair_with(|config| config.room.key_window = window).await;
    let lobby = room("lobby");
    let first = new(a.publish_one(&lobby, keyed("ann", "k", "first")).await);
    let second = eventually("the end of the key's window", async || {
        match b.publish_one(&lobby, keyed("ann", "k", "second")).await {
            Outcome::New(place) => Some(place),
            Outcome::Again(place) => {
                assert_eq!(place, first);
                None
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(second.seq > first.seq);
    assert_eq!(content(&a, "lobby").await, ["first", "second"]);
}
