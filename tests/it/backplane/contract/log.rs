//! Messages: numbers, order, who hears them.

use std::collections::BTreeSet;

use conclave::backplane::contract::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Entry, Outcome, Position, RoomKey};
use tokio::sync::watch;

use super::super::engines::Engine;
use super::super::peer::{Peer, draft, eventually, neighbour, room, said, sealed};

super::promises! {
    messages_are_numbered_in_order_and_every_attached_node_hears_each
    a_batch_keeps_its_order_up_to_its_bounds
    senders_of_several_nodes_share_one_order
    what_comes_after_an_attach_is_heard_without_a_gap
    who_attaches_again_only_reads_again
    who_has_detached_hears_nothing
    rooms_of_odd_names_are_apart
}

/// Each follows the one before, and is its successor where seqs are dense.
fn chain(peer: &Peer, after: u64, entries: &[Entry]) {
    let mut follows = after;
    for entry in entries {
        assert_eq!(entry.follows, follows, "{entries:#?}");
        assert!(entry.position.seq > follows);
        if peer.capabilities().dense {
            assert_eq!(entry.position.seq, follows + 1);
        }
        follows = entry.position.seq;
    }
}

async fn messages_are_numbered_in_order_and_every_attached_node_hears_each(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    let opened = a.attach(&lobby).await.unwrap();
    assert_eq!((opened.head, opened.users.users.len()), (0, 0));
    let start = Position {
        epoch: opened.lineage.epoch(),
        seq: 0,
    };
    assert!(!start.epoch.is_empty());
    let also = b.attach(&lobby).await.unwrap();
    assert_eq!(also.lineage, opened.lineage, "the room is the same on both nodes");

    let before_ms = conclave::runtime::now_ms();
    let mut places = Vec::new();
    for (at, peer) in [&a, &b, &a, &b].into_iter().enumerate() {
        let drafts: Vec<_> = (0..3).map(|i| draft("ann", &format!("{at}.{i}"))).collect();
        for outcome in peer.publish_all(&lobby, &drafts).await {
            let Outcome::New(place) = outcome else {
                panic!("{outcome:?}");
            };
            places.push(place);
        }
    }
    let log = b.all_after(&lobby, &start).await;
    let positions: Vec<_> = log.iter().map(|entry| entry.position.clone()).collect();
    assert_eq!(positions, places);
    chain(&a, 0, &log);
    for (at, entry) in log.iter().enumerate() {
        assert_eq!(entry.envelope, sealed("ann", &format!("{}.{}", at / 3, at % 3)));
        assert!(entry.time_ms.abs_diff(before_ms) < 60_000, "the time is that of now");
    }
    for peer in [&a, &b] {
        for place in &places {
            peer.heard.message_at(&lobby, place).await;
        }
        assert_eq!(peer.heard.read(|heard| heard.distinct(&lobby)), log);
    }
}

async fn a_batch_keeps_its_order_up_to_its_bounds(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, hall) = (room("lobby"), room("hall"));
    b.attach(&lobby).await.unwrap();
    let drafts: Vec<_> = (0..BATCH_MESSAGES_MAX).map(|i| draft("ann", &i.to_string())).collect();
    let outcomes = a.publish_all(&lobby, &drafts).await;
    let Some(Outcome::New(last)) = outcomes.last() else {
        panic!("{outcomes:?}");
    };
    b.heard.message_at(&lobby, last).await;
    let heard = b.heard.read(|heard| heard.distinct(&lobby));
    let said: Vec<_> = heard.iter().map(said).collect();
    assert_eq!(said, (0..BATCH_MESSAGES_MAX).map(|i| i.to_string()).collect::<Vec<_>>());

    // A single one may be larger than a batch.
    b.attach(&hall).await.unwrap();
    let large = "ü".repeat(BATCH_BYTES_MAX / 2 + 1_000);
    let place = a.say(&hall, &large).await;
    assert_eq!(b.heard.message_at(&hall, &place).await.envelope, sealed("ann", &large));
}

async fn senders_of_several_nodes_share_one_order(engine: &Engine) {
    const EACH: usize = 60;
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    for peer in [&a, &b] {
        peer.attach(&lobby).await.unwrap();
    }
    let sender = async |peer: &Peer, user: &str| {
        for at in 0..EACH {
            let outcome = peer.publish_one(&lobby, draft(user, &format!("{user} {at:03}"))).await;
            assert!(matches!(outcome, Outcome::New(_)), "{outcome:?}");
        }
    };
    tokio::join!(sender(&a, "ann"), sender(&b, "bob"));
    let log = a.before(&lobby, u64::MAX, 2 * EACH).await.unwrap().entries;
    chain(&a, 0, &log);
    for user in ["ann", "bob"] {
        let own: Vec<_> = log.iter().map(said).filter(|said| said.starts_with(user)).collect();
        assert_eq!(own.len(), EACH);
        assert!(own.is_sorted(), "{own:?}");
    }
    for peer in [&a, &b] {
        let heard = peer
            .heard
            .until("all messages", |heard| {
                let distinct = heard.distinct(&lobby);
                (distinct.len() == 2 * EACH).then_some(distinct)
            })
            .await;
        assert_eq!(heard, log);
    }
}

async fn what_comes_after_an_attach_is_heard_without_a_gap(engine: &Engine) {
    const ROUNDS: usize = 10;
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    let (tell, mut told) = watch::channel(0);
    let stop = tokio_util::sync::CancellationToken::new();
    let publishing = async {
        let mut last = a.say(&lobby, "first").await;
        while !stop.is_cancelled() {
            last = a.say(&lobby, "next").await;
            tell.send_modify(|count| *count += 1);
            // An engine that never waits would let nobody else run.
            tokio::task::yield_now().await;
        }
        last
    };
    let attaching = async {
        let mut heads = Vec::new();
        for _ in 0..ROUNDS {
            // In the middle of the stream, wherever that is.
            let seen = *told.borrow_and_update();
            told.wait_for(|count| *count > seen + 2).await.expect("it publishes");
            heads.push(b.attach(&lobby).await.unwrap().head);
            let seen = *told.borrow_and_update();
            told.wait_for(|count| *count > seen + 2).await.expect("it publishes");
            if heads.len() < ROUNDS {
                b.detach(&lobby).await;
            }
        }
        stop.cancel();
        heads
    };
    let (last, heads) = tokio::join!(publishing, attaching);
    b.heard.message_at(&lobby, &last).await;
    let head = *heads.last().expect("several rounds");
    let heard = b.heard.read(|heard| heard.distinct(&lobby));
    let since: Vec<_> = heard.into_iter().filter(|entry| entry.position.seq > head).collect();
    chain(&b, head, &since);
    assert_eq!(since.last().map(|entry| &entry.position), Some(&last));
}

async fn who_attaches_again_only_reads_again(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    a.attach(&lobby).await.unwrap();
    let first = b.say(&lobby, "one").await;
    let again = a.attach(&lobby).await.unwrap();
    assert_eq!((again.head, again.lineage.epoch()), (first.seq, first.epoch));
    let second = b.say(&lobby, "two").await;
    a.heard.message_at(&lobby, &second).await;
    // One end is enough for two beginnings.
    a.detach(&lobby).await;
    goes_deaf(&a, &b, &lobby).await;
}

async fn who_has_detached_hears_nothing(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    a.detach(&lobby).await;
    for _ in 0..5 {
        let head = a.attach(&lobby).await.unwrap().head;
        let heard = b.say(&lobby, "heard").await;
        assert!(heard.seq > head);
        a.heard.message_at(&lobby, &heard).await;
        a.detach(&lobby).await;
        goes_deaf(&a, &b, &lobby).await;
    }
}

/// The end of a subscription takes a moment to arrive.
async fn goes_deaf(peer: &Peer, other: &Peer, room: &RoomKey) {
    let fence = neighbour(room);
    peer.attach(&fence).await.unwrap();
    eventually("the end of a subscription", async || {
        let unheard = other.say(room, "unheard").await;
        let after = other.say(&fence, "after it").await;
        peer.heard.message_at(&fence, &after).await;
        let heard = peer.heard.read(|log| log.distinct(room));
        heard.iter().all(|entry| entry.position != unheard).then_some(())
    })
    .await;
}

async fn rooms_of_odd_names_are_apart(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let longest = "l".repeat(128);
    let widest = "界".repeat(42) + "é";
    assert_eq!(widest.len(), 128);
    let names = [
        "}x",
        "{x",
        "{a}b",
        "{b}a",
        "{}",
        "a b  c",
        "a b c",
        "a:b",
        "a.b",
        "a,b",
        ">",
        "a.>",
        "a/b",
        "lobby",
        "Lobby",
        "ü",
        "日本/🦀",
        "%00",
        "\\",
        "\"",
        "'",
        "$",
        "0",
        "-",
        &longest,
        &widest,
    ];
    let rooms: Vec<_> = names.iter().map(|name| room(name)).collect();
    for room in &rooms {
        a.attach(room).await.unwrap();
    }
    let mut places = Vec::new();
    for room in &rooms {
        places.push(b.say(room, &room.name).await);
    }
    for (room, place) in rooms.iter().zip(&places) {
        a.heard.message_at(room, place).await;
        let page = a.before(room, u64::MAX, 9).await.unwrap().entries;
        assert_eq!(page.iter().map(said).collect::<Vec<_>>(), [room.name.to_string()]);
        assert_eq!(a.heard.read(|heard| heard.distinct(room)), page);
    }
    let told: BTreeSet<String> = a.heard.read(|heard| heard.messages.keys().cloned().collect());
    assert_eq!(told, names.iter().map(ToString::to_string).collect());
    let heads = b.heads(&rooms).await.unwrap();
    let heads: Vec<_> = heads
        .into_iter()
        .map(|head| head.expect("it is there").position)
        .collect();
    assert_eq!(heads, places);
}
