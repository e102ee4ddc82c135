//! What hooks are to be told: there if and only if it happened, in order, told by one node at a time.

use std::sync::Arc;
use std::time::Duration;

use conclave::backplane::contract::{
    Failed, Incarnation, OutboxAnswer, OutboxAsk, OutboxDone, OutboxPage, OutboxPiece, Presented, Refusal, RoomKey,
    SessionChange, SessionTurn,
};
use conclave::backplane::outbox::record::{Record, What};
use conclave::backplane::outbox::{Backlog, Event, Hook, Outboxes, Place};
use conclave::backplane::partition;

use super::super::engines::Engine;
use super::super::peer::{Peer, enters, eventually, leaves, life, room};
use super::lives::begin;

super::promises! {
    who_cannot_keep_them_says_so
    what_happens_is_told_in_order
    one_node_at_a_time_has_an_outbox_in_hand
    who_tells_hooks_is_known
    the_dead_are_told_of
    a_server_that_dies_takes_nothing_with_it
}

const PIECE: OutboxPiece = OutboxPiece {
    events: 100,
    bytes: 1 << 20,
    hold: Duration::from_secs(300),
};

fn outboxes() -> Arc<Outboxes> {
    let hook = Hook::new("all", &Event::ALL, &[], 1_000, 1 << 20);
    Arc::new(Outboxes::new("a", vec![hook]))
}

/// Two nodes that keep outboxes; none if the engine cannot.
async fn pair(engine: &Engine) -> Option<[Peer; 2]> {
    let pair = engine.pair().await;
    for peer in &pair {
        peer.plane.keep_outboxes(outboxes());
    }
    pair[0].capabilities().outbox.then_some(pair)
}

async fn ask(peer: &Peer, who: &Incarnation, place: Place, instead_of: Option<&Incarnation>) -> OutboxAnswer {
    let asks = [OutboxAsk {
        place,
        instead_of: instead_of.cloned(),
    }];
    // A link may have been made anew a moment ago.
    eventually("an answer", async || {
        let answers = peer.outbox_read(who, &asks, PIECE).await.ok()?;
        answers.into_iter().next()?.ok()
    })
    .await
}

async fn page(peer: &Peer, who: &Incarnation, place: Place) -> OutboxPage {
    match ask(peer, who, place, None).await {
        OutboxAnswer::Page(page) => page,
        OutboxAnswer::Busy(holder) => panic!("{holder} has it"),
    }
}

async fn done(peer: &Peer, place: Place, page: &OutboxPage) -> bool {
    let done = [OutboxDone {
        place,
        lease: Arc::clone(&page.lease),
        upto: page.first + page.records.len() as u64 - 1,
        release: false,
    }];
    let done = peer.outbox_done(&done).await.expect("answers");
    done.into_iter().next().expect("one").expect("an answer")
}

fn at(room: &RoomKey) -> Place {
    Place {
        partition: room.partition,
        hook: 0,
    }
}

/// `chat 7`, `join`, …
fn told(page: &OutboxPage) -> Vec<String> {
    let name = |record: &bytes::Bytes| match Record::parse(record).expect("a record").what {
        What::Chat { seq, .. } => format!("chat {seq}"),
        What::Presence { joined: true, .. } => "join".to_owned(),
        What::Presence { .. } => "left".to_owned(),
        What::Session { members } => members.to_owned(),
        What::Lost { count, .. } => format!("lost {count}"),
    };
    page.records.iter().map(name).collect()
}

async fn who_cannot_keep_them_says_so(engine: &Engine) {
    let [a, _b] = engine.pair().await;
    if !a.capabilities().outbox {
        let asked = a.outbox_waiting(&[1]).await;
        assert_eq!(asked, Err(Failed::Refused(Refusal::Forbidden)));
    }
}

async fn what_happens_is_told_in_order(engine: &Engine) {
    let Some([a, b]) = pair(engine).await else { return };
    let ([one, two], room) = ([life(), life()], room("told > * \u{e9}"));
    begin(&a, &one).await;
    begin(&b, &two).await;
    a.moves(&one, &[enters(&room, "ann")]).await;
    a.say(&room, "1").await;
    b.moves(&two, &[enters(&room, "ann")]).await;
    b.say(&room, "2").await;
    a.moves(&one, &[leaves(&room, "ann")]).await;
    b.moves(&two, &[leaves(&room, "ann")]).await;
    let waiting = a
        .outbox_waiting(&(0..1_024).collect::<Vec<_>>())
        .await
        .expect("an answer");
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!((waiting[0].0, waiting[0].1.events), (at(&room), 4));
    let page = page(&b, &two, at(&room)).await;
    assert_eq!(told(&page), ["join", "chat 1", "chat 2", "left"]);
    assert!(done(&b, at(&room), &page).await);
    assert!(a.outbox_waiting(&[room.partition]).await.expect("an answer").is_empty());
}

async fn one_node_at_a_time_has_an_outbox_in_hand(engine: &Engine) {
    let Some([a, b]) = pair(engine).await else { return };
    let ([one, two], room) = ([life(), life()], room("in hand"));
    a.say(&room, "1").await;
    let first = page(&a, &one, at(&room)).await;
    assert_eq!(ask(&b, &two, at(&room), None).await, OutboxAnswer::Busy(one.clone()));
    let OutboxAnswer::Page(second) = ask(&b, &two, at(&room), Some(&one)).await else {
        panic!("the dead have nothing in hand");
    };
    assert_eq!(first.records, second.records, "the same, under the same id");
    assert!(!done(&a, at(&room), &first).await, "too late");
    assert!(done(&b, at(&room), &second).await);
}

async fn who_tells_hooks_is_known(engine: &Engine) {
    let Some([a, b]) = pair(engine).await else { return };
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    begin(&b, &two).await;
    let backlog = [Backlog { events: 7, bytes: 70 }];
    assert_eq!(
        a.outbox_report(&one, &backlog).await,
        Ok(vec![(one.clone(), backlog.to_vec())])
    );
    let mut reports = b.outbox_report(&two, &[Backlog::default()]).await.expect("an answer");
    reports.sort_by_key(|(_, backlogs)| backlogs[0].events);
    let expected = [(two.clone(), vec![Backlog::default()]), (one.clone(), backlog.to_vec())];
    assert_eq!(reports, expected);
    a.resign(&one).await.expect("an answer");
    let reports = b.outbox_report(&two, &[Backlog::default()]).await.expect("an answer");
    assert_eq!(reports.len(), 1, "who has no lease tells nobody");
}

async fn the_dead_are_told_of(engine: &Engine) {
    let Some([a, b]) = pair(engine).await else { return };
    let ([one, two], room) = ([life(), life()], room("the dead"));
    begin(&a, &one).await;
    begin(&b, &two).await;
    a.moves(&one, &[enters(&room, "ann")]).await;
    let wanting = |event| outboxes().wanting(event, "");
    let opened = SessionChange {
        user: "ann".into(),
        session: "s-1".into(),
        turn: SessionTurn::Begins {
            end: r#""event":"close","code":1006"#.into(),
            since_ms: 1,
        },
        hooks: wanting(Event::Open),
        record: r#"s e-1 1 "event":"open""#.into(),
    };
    let begun = a.outbox_sessions(&one, &[], std::slice::from_ref(&opened)).await;
    assert_eq!(begun, Ok(vec![Ok(Presented::Done)]));
    // As good as dead: whoever resigns and has not said goodbye to its clients.
    a.resign(&one).await.expect("an answer");
    assert_eq!(told(&page(&b, &two, at(&room)).await), ["join", "left"]);
    let sessions = Place {
        partition: partition::of("ann"),
        hook: 0,
    };
    let told = told(&page(&b, &two, sessions).await);
    assert_eq!((told.len(), &*told[0]), (2, r#""event":"open""#));
    assert!(
        told[1].starts_with(r#""event":"close","code":1006,"duration_ms":"#),
        "{told:?}"
    );
    let again = a.outbox_sessions(&one, &[], &[opened]).await;
    assert_eq!(again, Ok(vec![Ok(Presented::Fenced)]));
}

async fn a_server_that_dies_takes_nothing_with_it(engine: &mut Engine) {
    let Some([a, b]) = pair(engine).await else { return };
    let (two, room) = (life(), room("survives"));
    for content in ["1", "2", "3"] {
        a.say(&room, content).await;
    }
    engine.kill(&room).await;
    engine.revive().await;
    assert_eq!(told(&page(&b, &two, at(&room)).await), ["chat 1", "chat 2", "chat 3"]);
}
