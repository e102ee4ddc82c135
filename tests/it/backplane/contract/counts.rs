//! Connections of a user on all nodes.

use std::sync::Arc;
use std::time::Duration;

use conclave::backplane::contract::{Counted, Incarnation, Presented, Renewal, Tally};

use super::super::engines::Engine;
use super::super::peer::{Peer, enters, eventually, life, room};
use super::lives::begin;

super::promises! {
    nodes_count_together
    a_later_word_counts
    at_once_never_more_than_the_limit
    the_dead_do_not_count
    who_has_no_lease_counts_for_nothing
    presence_is_another_matter
}

const SHORT_LEASE: Duration = Duration::from_millis(300);
const ANN: &str = "ann > * \u{e9}";

fn tally(connections: u32, version: u64) -> Tally {
    Tally { connections, version }
}

async fn count(peer: &Peer, own: &Incarnation, tally: Tally, max: u32) -> Counted {
    peer.count(own, ANN, tally, max).await.expect("an answer")
}

async fn recount(peer: &Peer, own: &Incarnation, tally: Tally) -> Presented {
    peer.recount(own, &[(ANN.into(), tally)]).await.expect("an answer")
}

async fn nodes_count_together(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    begin(&b, &two).await;
    assert_eq!(count(&a, &one, tally(1, 1), 3).await, Counted::Within);
    assert_eq!(count(&b, &two, tally(1, 1), 3).await, Counted::Within);
    assert_eq!(count(&b, &two, tally(2, 2), 3).await, Counted::Within);
    assert_eq!(count(&a, &one, tally(2, 2), 3).await, Counted::Over);
    assert_eq!(recount(&a, &one, tally(1, 3)).await, Presented::Done);
    assert_eq!(count(&b, &two, tally(3, 3), 3).await, Counted::Over);
    let bobs = b.count(&two, "bob", tally(1, 4), 1).await;
    assert_eq!(bobs, Ok(Counted::Within), "nobody else's");
    recount(&b, &two, tally(2, 5)).await;
    // One of hers goes.
    recount(&b, &two, tally(1, 6)).await;
    assert_eq!(count(&a, &one, tally(2, 4), 3).await, Counted::Within);
    recount(&b, &two, tally(0, 7)).await;
    assert_eq!(count(&a, &one, tally(3, 5), 3).await, Counted::Within);
}

async fn a_later_word_counts(engine: &Engine) {
    let [a, b] = engine.pair().await;
    if !a.capabilities().exact_counts {
        return;
    }
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    begin(&b, &two).await;
    recount(&a, &one, tally(0, 9)).await;
    recount(&a, &one, tally(5, 8)).await;
    assert_eq!(count(&a, &one, tally(1, 7), 1).await, Counted::Within, "its own word");
    assert_eq!(
        count(&b, &two, tally(1, 1), 1).await,
        Counted::Within,
        "nothing is left of it"
    );
}

async fn at_once_never_more_than_the_limit(engine: &Engine) {
    const MAX: u32 = 4;
    let [a, b] = engine.pair().await;
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    begin(&b, &two).await;
    let node = async |peer: &Peer, own: &Incarnation| {
        let mut within = 0;
        for version in 1..=10 {
            match count(peer, own, tally(within + 1, 2 * version), MAX).await {
                Counted::Within => within += 1,
                Counted::Over => {
                    recount(peer, own, tally(within, 2 * version + 1)).await;
                }
                Counted::Fenced => panic!("it lives"),
            }
        }
        within
    };
    let (here, there) = tokio::join!(node(&a, &one), node(&b, &two));
    assert!(here + there <= MAX, "{here} and {there}");
    assert!(
        !a.capabilities().exact_counts || here + there == MAX,
        "{here} and {there}"
    );
}

async fn the_dead_do_not_count(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, dead] = [life(), life()];
    begin(&a, &one).await;
    let begun = b.renew(&dead, true, SHORT_LEASE).await.expect("an answer");
    assert!(matches!(begun, Renewal::Alive { .. }));
    recount(&b, &dead, tally(7, 1)).await;
    let version = std::sync::atomic::AtomicU64::new(0);
    eventually("a dead node's connections to count no more", async || {
        a.reap(&dead).await.expect("an answer");
        let version = 1 + version.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (count(&a, &one, tally(1, version), 1).await == Counted::Within).then_some(())
    })
    .await;
}

async fn who_has_no_lease_counts_for_nothing(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    begin(&b, &two).await;
    recount(&b, &two, tally(7, 1)).await;
    b.resign(&two).await.expect("an answer");
    assert_eq!(recount(&b, &two, tally(7, 2)).await, Presented::Fenced);
    assert_eq!(count(&b, &two, tally(8, 3), 100).await, Counted::Fenced);
    assert_eq!(count(&a, &one, tally(1, 1), 1).await, Counted::Within);
}

async fn presence_is_another_matter(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (lobby, [one, two]) = (room("lobby"), [life(), life()]);
    begin(&a, &one).await;
    begin(&b, &two).await;
    recount(&a, &one, tally(1, 1)).await;
    a.moves(&one, &[enters(&lobby, "bob")]).await;
    let held = a.assert_held(&one, &[enters(&lobby, "cara")]).await;
    assert_eq!(held, Ok(Presented::Done));
    assert_eq!(b.names(&lobby).await, ["cara"]);
    assert_eq!(
        count(&b, &two, tally(1, 1), 1).await,
        Counted::Over,
        "her connection is still there"
    );
    let many: Vec<(Arc<str>, Tally)> = (0..300).map(|at| (format!("u{at}").into(), tally(1, 2))).collect();
    assert_eq!(a.recount(&one, &many).await, Ok(Presented::Done));
}
