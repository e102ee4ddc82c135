//! What a log answers to positions, good and bad.

use conclave::backplane::contract::{Entry, Found, PAGE_ENTRIES_MAX, Position};

use super::super::engines::Engine;
use super::super::peer::{Peer, draft, enters, life, room, said};

super::promises! {
    successors_are_found_in_pages
    a_position_above_its_epoch_is_forked
    an_epoch_that_nobody_knows_is_unknown
    a_room_that_nobody_made_is_none
    older_messages_are_paged_backwards
    heads_come_in_the_order_asked
}

/// Messages `0`, `1`, … in a new room; their entries.
async fn filled(peer: &Peer, name: &str, count: usize) -> Vec<Entry> {
    let room = room(name);
    let opened = peer.attach(&room).await.unwrap();
    let all: Vec<_> = (0..count).map(|at| draft("ann", &at.to_string())).collect();
    for drafts in all.chunks(50) {
        peer.publish_all(&room, drafts).await;
    }
    let start = Position {
        epoch: opened.lineage.epoch(),
        seq: 0,
    };
    let entries = peer.all_after(&room, &start).await;
    assert_eq!(entries.len(), count);
    entries
}

async fn successors_are_found_in_pages(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, empty) = (room("lobby"), room("empty"));
    let entries = filled(&a, "lobby", PAGE_ENTRIES_MAX + 20).await;
    let (first, last) = (&entries[0], &entries[entries.len() - 1]);
    let range = b.range(&lobby, &first.position, 7).await.unwrap();
    assert_eq!(
        (range.head, range.lineage.epoch()),
        (last.position.seq, last.position.epoch.clone())
    );
    assert_eq!(range.found, Found::Entries(entries[1..8].to_vec()));
    let Found::Entries(page) = b.range(&lobby, &first.position, 9_999).await.unwrap().found else {
        panic!("nothing is trimmed");
    };
    assert!((1..=PAGE_ENTRIES_MAX).contains(&page.len()), "{}", page.len());
    assert_eq!(page, entries[1..=page.len()]);
    let at_head = b.range(&lobby, &last.position, 9).await.unwrap();
    assert_eq!(at_head.found, Found::Entries(Vec::new()));

    // Nobody has said anything: 0 is the head.
    let opened = a.attach(&empty).await.unwrap();
    let start = Position {
        epoch: opened.lineage.epoch(),
        seq: 0,
    };
    let range = b.range(&empty, &start, 9).await.unwrap();
    assert_eq!((range.found, range.head), (Found::Entries(Vec::new()), 0));
    let place = b.say(&empty, "at last").await;
    let Found::Entries(entries) = a.range(&empty, &start, 9).await.unwrap().found else {
        panic!("nothing is trimmed");
    };
    assert_eq!(
        (entries.len(), &entries[0].position, entries[0].follows),
        (1, &place, 0)
    );
}

async fn a_position_above_its_epoch_is_forked(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let entries = filled(&a, "lobby", 3).await;
    let last = entries[2].position.clone();
    for above in [1, 2, 1_000_000] {
        let after = Position {
            seq: last.seq + above,
            ..last.clone()
        };
        let range = b.range(&room("lobby"), &after, 9).await.unwrap();
        assert_eq!((range.found, range.head), (Found::Forked(last.seq), last.seq));
    }
}

async fn an_epoch_that_nobody_knows_is_unknown(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let entries = filled(&a, "lobby", 3).await;
    let newest = &entries[2].position;
    for (epoch, seq) in [
        ("nobody's", 2),
        ("nobody's", 0),
        ("nobody's", 99),
        ("%-.", 1),
        ("a:1,b", 1),
        ("", 1),
    ] {
        let after = Position {
            epoch: epoch.into(),
            seq,
        };
        let range = b.range(&room("lobby"), &after, 9).await.unwrap();
        assert_eq!(range.found, Found::Unknown, "{epoch:?}");
        assert_eq!((range.head, &range.lineage.epoch()), (newest.seq, &newest.epoch));
    }
}

async fn a_room_that_nobody_made_is_none(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (nowhere, lobby) = (room("nowhere"), room("lobby"));
    a.say(&lobby, "so that there is something").await;
    let after = Position {
        epoch: "nobody's".into(),
        seq: 1,
    };
    assert_eq!(b.range(&nowhere, &after, 9).await.unwrap().found, Found::None);
    let page = b.before(&nowhere, 9, 9).await.unwrap();
    assert!(page.entries.is_empty() && !page.more);
    assert!(b.users(&nowhere).await.unwrap().users.is_empty());
    assert_eq!(b.heads(&[nowhere]).await.unwrap(), [None], "no question has made it");
}

async fn older_messages_are_paged_backwards(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let lobby = room("lobby");
    let entries = filled(&a, "lobby", 10).await;
    let seq = |at: usize| entries[at].position.seq;
    for (before, limit, wanted, more) in [
        (u64::MAX, 4, 6..10, true),
        (seq(9) + 1, 4, 6..10, true),
        (seq(6), 4, 2..6, true),
        (seq(2), 4, 0..2, false),
        (seq(4), 4, 0..4, false),
        (seq(1), 4, 0..1, false),
        (seq(0), 4, 0..0, false),
        (0, 4, 0..0, false),
        (u64::MAX, 128, 0..10, false),
    ] {
        let page = b.before(&lobby, before, limit).await.unwrap();
        assert_eq!(
            page.entries,
            entries[wanted.clone()],
            "before {before}: {:?}",
            page.entries.iter().map(said).collect::<Vec<_>>()
        );
        assert_eq!(page.more, more, "before {before} come {wanted:?}");
    }
    let many = filled(&a, "many", PAGE_ENTRIES_MAX + 20).await;
    let page = b.before(&room("many"), u64::MAX, 9_999).await.unwrap();
    assert!(page.more && page.entries.len() <= PAGE_ENTRIES_MAX);
    assert_eq!(page.entries, many[many.len() - page.entries.len()..]);
}

async fn heads_come_in_the_order_asked(engine: &Engine) {
    let [a, b] = engine.pair().await;
    // Over many partitions, and more than one room in one of them.
    let rooms: Vec<_> = (0..40).map(|at| room(&format!("room {at}"))).collect();
    let mut places = Vec::new();
    for room in &rooms {
        a.say(room, "one").await;
        places.push(a.say(room, "two").await);
    }
    a.moves(&life(), &[enters(&rooms[3], "ann")]).await;
    let mut asked: Vec<_> = rooms.iter().rev().cloned().collect();
    asked.insert(5, room("nowhere"));
    asked.push(rooms[0].clone());
    let mut heads = b.heads(&asked).await.unwrap();
    assert_eq!(heads.len(), 42);
    let twice = heads.pop().unwrap();
    assert_eq!(heads.remove(5), None);
    assert_eq!(twice, heads[39]);
    for ((head, place), room) in heads.into_iter().rev().zip(places).zip(&rooms) {
        let head = head.expect("it is there");
        assert_eq!(head.position, place);
        assert_eq!(head.presence, b.users(room).await.unwrap().version);
    }
    assert!(b.heads(&[]).await.unwrap().is_empty());
}
