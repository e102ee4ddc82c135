//! The servers of an engine come and go; what was kept stays.

use std::time::Duration;

use conclave::backplane::contract::{Failed, Found, Outcome, Refusal};

use super::super::engines::Engine;
use super::super::peer::{LONG, draft, enters, eventually, keyed, life, room, said};

super::promises! {
    what_comes_too_late_is_not_said
    what_was_kept_is_there_after_a_crash_and_all_is_doubted
    a_node_starts_while_the_engine_is_away
}

/// Who wakes from a pause, on either side, publishes nothing that was given up.
async fn what_comes_too_late_is_not_said(engine: &mut Engine) {
    let [a, b] = engine.pair().await;
    if !engine.has_servers() || !a.capabilities().atomic {
        return;
    }
    let lobby = room("lobby");
    b.attach(&lobby).await.unwrap();
    a.say(&lobby, "first").await;
    engine.freeze();
    let batch = [draft("ann", "late"), keyed("ann", "k", "late too")];
    let publishing = a.publish(&lobby, &batch, Duration::from_millis(100));
    let pause = async {
        // It has left the node long before this is over.
        tokio::time::sleep(Duration::from_millis(350)).await;
        engine.thaw();
    };
    let (outcomes, ()) = tokio::join!(publishing, pause);
    for outcome in &outcomes {
        assert!(
            matches!(
                outcome,
                Outcome::Refused(Refusal::Late | Refusal::Away) | Outcome::Unknown
            ),
            "{outcome:?}"
        );
    }
    // Its key was not taken either.
    let second = eventually("a publish after the pause", async || {
        match a.publish_one(&lobby, keyed("ann", "k", "second")).await {
            Outcome::New(place) => Some(place),
            Outcome::Again(place) => panic!("said at {place:?}"),
            Outcome::Refused(_) | Outcome::Unknown => None,
        }
    })
    .await;
    let page = eventually("a look at the log", async || b.before(&lobby, u64::MAX, 9).await.ok()).await;
    let said: Vec<_> = page.entries.iter().map(said).collect();
    assert_eq!(said, ["first", "second"], "{second:?}");
}

async fn what_was_kept_is_there_after_a_crash_and_all_is_doubted(engine: &mut Engine) {
    if !engine.has_servers() {
        return;
    }
    let [a, b] = engine
        .pair_with(|config| config.backplane.call_timeout = Duration::from_secs(1))
        .await;
    let (lobby, one) = (room("lobby"), life());
    b.attach(&lobby).await.unwrap();
    super::lives::begin(&a, &one).await;
    a.moves(&one, &[enters(&lobby, "ann")]).await;
    let mut last = a.say(&lobby, "0").await;
    for at in 1..10 {
        last = a.say(&lobby, &at.to_string()).await;
    }
    b.heard.message_at(&lobby, &last).await;
    let doubts = b.heard.read(|heard| heard.suspects.len());

    engine.kill(&lobby).await;
    // It is told, not waited for.
    let lost = a.publish(&lobby, &[draft("ann", "lost")], Duration::from_secs(1)).await;
    assert!(matches!(lost[..], [Outcome::Refused(_) | Outcome::Unknown]), "{lost:?}");
    engine.revive().await;

    b.heard
        .until("doubt about what may have been missed", |heard| {
            (heard.up && heard.suspects.len() > doubts).then_some(())
        })
        .await;
    let next = eventually("a publish after the crash", async || {
        match a.publish_one(&lobby, draft("ann", "next")).await {
            Outcome::New(place) => Some(place),
            _ => None,
        }
    })
    .await;
    let found = eventually("the log", async || b.range(&lobby, &last, 9).await.ok())
        .await
        .found;
    let Found::Entries(entries) = found else {
        panic!("{found:?} after {last:?}: nothing was lost");
    };
    assert_eq!(entries.last().map(|entry| &entry.position), Some(&next));
    let unanswered = usize::from(said(&entries[0]) == "lost");
    assert_eq!(entries[unanswered..].iter().map(said).collect::<Vec<_>>(), ["next"]);
    b.heard.message_at(&lobby, &next).await;
    assert_eq!(b.names(&lobby).await, ["ann"]);
}

async fn a_node_starts_while_the_engine_is_away(engine: &mut Engine) {
    if !engine.has_servers() {
        return;
    }
    let lobby = room("lobby");
    let mut config = engine.config();
    config.backplane.connect_timeout = Duration::from_secs(1);
    config.backplane.call_timeout = Duration::from_secs(1);
    engine.kill(&lobby).await;
    let node = engine.begin(&config).await;
    let refused = node.attach(&lobby).await.err();
    assert!(
        matches!(refused, Some(Failed::Refused(Refusal::Away) | Failed::Unknown)),
        "{refused:?}"
    );
    let lost = node.publish(&lobby, &[draft("ann", "lost")], LONG).await;
    assert!(matches!(lost[..], [Outcome::Refused(_) | Outcome::Unknown]), "{lost:?}");
    engine.revive().await;
    node.heard.until("a link", |heard| heard.up.then_some(())).await;
    let opened = eventually("an attach", async || node.attach(&lobby).await.ok()).await;
    assert_eq!(opened.head, 0);
    let place = node.say(&lobby, "at last").await;
    node.heard.message_at(&lobby, &place).await;
}
