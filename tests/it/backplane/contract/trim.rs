//! History ends somewhere, and says where.

use std::time::Duration;

use conclave::backplane::contract::{Found, Position};

use super::super::engines::Engine;
use super::super::peer::{Peer, draft, eventually, room, said};

super::promises! {
    the_newest_messages_are_kept_and_the_others_trimmed
    history_is_bounded_by_bytes
    history_ends_by_age_and_the_numbers_go_on
    a_message_that_is_too_old_goes_before_the_younger_ones
}

/// What the answer to a position that was trimmed says, checked against the log.
async fn trimmed(peer: &Peer, after: &Position) -> Position {
    let lobby = room("lobby");
    let range = peer.range(&lobby, after, 128).await.unwrap();
    let Found::Trimmed(place) = range.found else {
        panic!("{:?}", range.found);
    };
    assert!(place.seq > after.seq && place.seq <= range.head);
    let rest = peer.all_after(&lobby, &place).await;
    if let Some(oldest) = rest.first() {
        assert_eq!(oldest.follows, place.seq, "nothing is missing after it");
    }
    let page = peer.before(&lobby, u64::MAX, 128).await.unwrap();
    assert_eq!(page.entries, rest, "all of it is told");
    assert!(!page.more);
    place
}

async fn the_newest_messages_are_kept_and_the_others_trimmed(engine: &Engine) {
    let [a, b] = engine.pair_with(|config| config.history.messages = 10).await;
    let lobby = room("lobby");
    let opened = a.attach(&lobby).await.unwrap();
    let mut places = vec![Position {
        epoch: opened.lineage.epoch(),
        seq: 0,
    }];
    for at in 1..=25 {
        places.push(a.say(&lobby, &at.to_string()).await);
    }
    for early in [0, 1, 14] {
        assert_eq!(trimmed(&b, &places[early]).await, places[15]);
    }
    let rest: Vec<_> = b.all_after(&lobby, &places[15]).await.iter().map(said).collect();
    assert_eq!(rest, (16..=25).map(|at| at.to_string()).collect::<Vec<_>>());
    assert_eq!(b.all_after(&lobby, &places[20]).await.len(), 5);

    // One batch that is more than is kept.
    let drafts: Vec<_> = (0..30).map(|at| draft("ann", &at.to_string())).collect();
    a.publish_all(&lobby, &drafts).await;
    trimmed(&b, &places[25]).await;
    assert_eq!(b.before(&lobby, u64::MAX, 128).await.unwrap().entries.len(), 10);
}

async fn history_is_bounded_by_bytes(engine: &Engine) {
    const BYTES: usize = 20_000;
    let [a, b] = engine.pair_with(|config| config.history.bytes = BYTES).await;
    if !a.capabilities().atomic {
        return; // Such engines know no bytes of one room.
    }
    let lobby = room("lobby");
    let first = a.say(&lobby, "first").await;
    for _ in 0..60 {
        a.say(&lobby, &"x".repeat(1_000)).await;
    }
    trimmed(&b, &first).await;
    let kept = || async {
        let page = b.before(&lobby, u64::MAX, 128).await.unwrap();
        page.entries.iter().map(|entry| entry.envelope.len()).sum::<usize>()
    };
    assert!((BYTES * 3 / 4..=BYTES).contains(&kept().await), "{}", kept().await);
    a.say(&lobby, &"x".repeat(BYTES * 3 / 4)).await;
    assert!((BYTES / 2..=BYTES).contains(&kept().await), "{}", kept().await);
}

async fn history_ends_by_age_and_the_numbers_go_on(engine: &Engine) {
    let age = Duration::from_secs(1);
    let [a, b] = engine.pair_with(|config| config.history.age = age).await;
    let lobby = room("lobby");
    // Who is attached keeps the room.
    a.attach(&lobby).await.unwrap();
    a.moves(
        &super::super::peer::life(),
        &[super::super::peer::enters(&lobby, "ann")],
    )
    .await;
    let first = a.say(&lobby, "first").await;
    let last = a.say(&lobby, "last").await;
    eventually("the end of history", async || {
        let page = b.before(&lobby, u64::MAX, 9).await.unwrap();
        page.entries.is_empty().then_some(())
    })
    .await;
    assert_eq!(trimmed(&b, &first).await, last);
    let at_head = b.range(&lobby, &last, 9).await.unwrap();
    assert_eq!((at_head.found, at_head.head), (Found::Entries(Vec::new()), last.seq));
    let next = a.say(&lobby, "next").await;
    assert_eq!(next.epoch, last.epoch);
    let rest = b.all_after(&lobby, &last).await;
    assert_eq!((rest.len(), &rest[0].position, rest[0].follows), (1, &next, last.seq));
}

async fn a_message_that_is_too_old_goes_before_the_younger_ones(engine: &Engine) {
    let age = Duration::from_secs(1);
    let [a, b] = engine.pair_with(|config| config.history.age = age).await;
    if !a.capabilities().history_age {
        return;
    }
    let lobby = room("lobby");
    let first = a.say(&lobby, "first").await;
    // Something is said all the time, so the room as a whole never gets old.
    eventually("the end of the first messages", async || {
        a.say(&lobby, "more").await;
        let page = b.before(&lobby, u64::MAX, 128).await.unwrap();
        (page.entries[0].follows > first.seq).then_some(())
    })
    .await;
    let last = a.say(&lobby, "last").await;
    let range = b.range(&lobby, &first, 128).await.unwrap();
    let Found::Trimmed(place) = range.found else {
        panic!("{:?}", range.found);
    };
    assert!(
        place.seq > first.seq && place.seq < last.seq,
        "the younger ones are still there"
    );
}
