//! Leases: who is alive, who is buried, and what becomes of their users.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave::backplane::contract::{Incarnation, Presented, Renewal};

use super::super::engines::Engine;
use super::super::peer::{Peer, enters, eventually, leaves, life, room};

super::promises! {
    all_who_live_know_of_each_other
    an_ended_lease_is_never_renewed
    the_living_are_not_reaped
    the_dead_leave_once_and_are_fenced
    whom_another_node_holds_stays
    two_reapers_move_each_user_out_once
    who_resigns_leaves_at_once
}

const LONG_LEASE: Duration = Duration::from_secs(300);

/// Ends before anybody could look away.
const SHORT_LEASE: Duration = Duration::from_millis(300);

/// Takes a lease that outlives the test.
pub async fn begin(peer: &Peer, life: &Incarnation) {
    assert!(renewed(peer, life, true).await.is_some(), "a new incarnation");
}

/// Live and expired incarnations; `None` if this one has ended.
async fn renewed(peer: &Peer, life: &Incarnation, begin: bool) -> Option<(Vec<Incarnation>, Vec<Incarnation>)> {
    match peer.renew(life, begin, LONG_LEASE).await.expect("an answer") {
        Renewal::Alive { mut nodes, expired, .. } => {
            nodes.sort();
            Some((nodes, expired))
        }
        Renewal::Expired => None,
    }
}

/// One that held something and whose lease has ended, as `other` sees.
async fn expired(peer: &Peer, other: &Incarnation, held: &[conclave::backplane::contract::Change]) -> Incarnation {
    let dead = life();
    let begun = peer.renew(&dead, true, SHORT_LEASE).await.expect("an answer");
    assert!(matches!(begun, Renewal::Alive { .. }));
    peer.moves(&dead, held).await;
    eventually("the end of a lease", async || {
        let (_, expired) = renewed(peer, other, false).await.expect("it lives");
        expired.contains(&dead).then_some(())
    })
    .await;
    dead
}

async fn reap(peer: &Peer, dead: &Incarnation) {
    eventually("the end of reaping", async || {
        peer.reap(dead).await.expect("an answer").then_some(())
    })
    .await;
}

async fn all_who_live_know_of_each_other(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, two] = [life(), life()];
    assert_eq!(renewed(&a, &one, true).await, Some((vec![one.clone()], vec![])));
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(renewed(&b, &two, true).await, Some((both.clone(), vec![])));
    assert_eq!(renewed(&a, &one, false).await, Some((both.clone(), vec![])));
    assert_eq!(
        renewed(&a, &one, true).await,
        Some((both, vec![])),
        "an answer that was lost is asked for again"
    );
    let server = async |peer: &Peer, life| match peer.renew(life, false, LONG_LEASE).await {
        Ok(Renewal::Alive { server, .. }) => server,
        other => panic!("{other:?}"),
    };
    assert_eq!(server(&a, &one).await, server(&b, &two).await);
}

async fn an_ended_lease_is_never_renewed(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [other, never] = [life(), life()];
    begin(&a, &other).await;
    let dead = expired(&b, &other, &[]).await;
    assert_eq!(renewed(&b, &dead, false).await, None);
    let (nodes, expired) = renewed(&a, &other, false).await.expect("it lives");
    assert_eq!((nodes, expired), (vec![other.clone()], vec![dead.clone()]));
    reap(&a, &dead).await;
    assert_eq!(renewed(&b, &dead, false).await, None);
    assert_eq!(renewed(&b, &never, false).await, None, "it never began");
    let (nodes, _) = renewed(&a, &other, false).await.expect("it lives");
    assert_eq!(nodes, [other]);
}

async fn the_living_are_not_reaped(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, [one, two]) = (room("lobby"), [life(), life()]);
    begin(&a, &one).await;
    begin(&b, &two).await;
    b.attach(&lobby).await.unwrap();
    a.moves(&one, &[enters(&lobby, "ann")]).await;
    b.reap(&one).await.expect("an answer");
    assert_eq!(b.names(&lobby).await, ["ann"]);
    a.moves(&one, &[enters(&lobby, "bob")]).await;
    assert!(renewed(&a, &one, false).await.is_some());
    b.heard.presence_is(&lobby, &["+ann", "+bob"]).await;
}

async fn the_dead_leave_once_and_are_fenced(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, other) = (room("lobby"), life());
    begin(&b, &other).await;
    b.attach(&lobby).await.unwrap();
    let held = [enters(&lobby, "ann"), enters(&lobby, "bob")];
    let dead = expired(&b, &other, &held).await;
    assert_eq!(a.names(&lobby).await, ["ann", "bob"], "nobody has reaped them");
    reap(&b, &dead).await;
    reap(&a, &dead).await;
    assert!(a.names(&lobby).await.is_empty());
    if !a.capabilities().fenced_presence {
        return;
    }
    // The paused node comes back.
    assert_eq!(a.present(&dead, &held).await, Ok(Presented::Fenced));
    assert_eq!(a.present(&dead, &[leaves(&lobby, "ann")]).await, Ok(Presented::Fenced));
    assert_eq!(a.assert_held(&dead, &held).await, Ok(Presented::Fenced));
    assert!(b.names(&lobby).await.is_empty(), "no ghosts");
    let again = life();
    begin(&a, &again).await;
    a.moves(&again, &held[..1]).await;
    let words = b
        .heard
        .until("ann's return", |heard| {
            let words = heard.came_and_went(&lobby);
            (words.len() >= 5).then_some(words)
        })
        .await;
    assert_eq!(
        (&words[..2], &words[4..]),
        (&["+ann".to_owned(), "+bob".to_owned()][..], &["+ann".to_owned()][..])
    );
}

async fn whom_another_node_holds_stays(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, other) = (room("lobby"), life());
    begin(&a, &other).await;
    a.attach(&lobby).await.unwrap();
    let dead = expired(&b, &other, &[enters(&lobby, "ann"), enters(&lobby, "bob")]).await;
    a.moves(&other, &[enters(&lobby, "ann")]).await;
    reap(&a, &dead).await;
    assert_eq!(b.names(&lobby).await, ["ann"]);
    a.moves(&other, &[leaves(&lobby, "ann")]).await;
    a.heard.presence_is(&lobby, &["+ann", "+bob", "-bob", "-ann"]).await;
}

async fn two_reapers_move_each_user_out_once(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (rooms, other) = ([room("lobby"), room("hall"), room("yard")], life());
    begin(&a, &other).await;
    for room in &rooms {
        a.attach(room).await.unwrap();
    }
    let users = (0..400).map(|at| enters(&rooms[at % 3], &format!("u{at}")));
    let dead = expired(&b, &other, &users.collect::<Vec<_>>()).await;
    tokio::join!(reap(&a, &dead), reap(&b, &dead));
    for room in &rooms {
        assert!(b.names(room).await.is_empty());
        a.moves(&other, &[enters(room, "end")]).await;
        let words = a
            .heard
            .until("the end", |heard| {
                let words = heard.came_and_went(room);
                (words.last().map(String::as_str) == Some("+end")).then_some(words)
            })
            .await;
        let mut times = BTreeMap::new();
        for word in &words {
            *times.entry(word).or_insert(0) += 1;
        }
        assert!(times.values().all(|times| *times == 1), "{times:?}");
        assert_eq!(
            words.iter().filter(|word| word.starts_with('-')).count(),
            words.len() / 2
        );
    }
}

async fn who_resigns_leaves_at_once(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, [one, two]) = (room("lobby"), [life(), life()]);
    begin(&a, &one).await;
    begin(&b, &two).await;
    b.attach(&lobby).await.unwrap();
    let mut users: Vec<_> = (0..300).map(|at| enters(&lobby, &format!("u{at:03}"))).collect();
    a.moves(&one, &users).await;
    b.moves(&two, &users.split_off(299)).await;
    a.resign(&one).await.expect("an answer");
    assert_eq!(b.names(&lobby).await, ["u299"]);
    assert_eq!(renewed(&b, &two, false).await, Some((vec![two.clone()], vec![])));
    assert_eq!(renewed(&a, &one, false).await, None);
    a.resign(&one).await.expect("a second time changes nothing");
    b.heard
        .until("299 to leave", |heard| {
            let words = heard.came_and_went(&lobby);
            let left = words.iter().filter(|word| word.starts_with('-')).count();
            assert!(left <= 299);
            (left == 299).then_some(())
        })
        .await;
}
