//! What nodes say of themselves, and who is heard.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave::backplane::contract::{Incarnation, Renewal};

use super::super::engines::Engine;
use super::super::peer::{Peer, eventually, life};
use super::lives::begin;

super::promises! {
    each_reads_what_all_say_of_themselves
    who_has_no_lease_says_nothing
    the_dead_are_forgotten
    who_resigns_is_forgotten
}

const SHORT_LEASE: Duration = Duration::from_millis(300);

async fn said(peer: &Peer, own: &Incarnation, words: &str) -> BTreeMap<Incarnation, String> {
    let advertised = peer.advertise(own, words.as_bytes()).await.expect("an answer");
    let text = |facts: bytes::Bytes| String::from_utf8(facts.to_vec()).expect("text");
    let said: BTreeMap<_, _> = (advertised.iter().cloned())
        .map(|(incarnation, facts)| (incarnation, text(facts)))
        .collect();
    assert_eq!(said.len(), advertised.len(), "nobody twice");
    said
}

fn facts<const N: usize>(words: [(&Incarnation, &str); N]) -> BTreeMap<Incarnation, String> {
    words
        .map(|(incarnation, facts)| (incarnation.clone(), facts.to_owned()))
        .into()
}

async fn each_reads_what_all_say_of_themselves(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    assert_eq!(said(&a, &one, "one").await, facts([(&one, "one")]));
    begin(&b, &two).await;
    assert_eq!(
        said(&b, &two, "ä \"two\"").await,
        facts([(&one, "one"), (&two, "ä \"two\"")])
    );
    assert_eq!(
        said(&a, &one, "one again").await,
        facts([(&one, "one again"), (&two, "ä \"two\"")])
    );
}

async fn who_has_no_lease_says_nothing(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, none] = [life(), life()];
    begin(&a, &one).await;
    said(&b, &none, "nobody").await;
    assert_eq!(said(&a, &one, "one").await, facts([(&one, "one")]));
}

async fn the_dead_are_forgotten(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, dead] = [life(), life()];
    begin(&a, &one).await;
    let begun = b.renew(&dead, true, SHORT_LEASE).await.expect("an answer");
    assert!(matches!(begun, Renewal::Alive { .. }));
    said(&b, &dead, "dead").await;
    eventually("to be forgotten", async || {
        a.reap(&dead).await.expect("an answer");
        (said(&a, &one, "one").await == facts([(&one, "one")])).then_some(())
    })
    .await;
    // It wakes up and does not know.
    said(&b, &dead, "ghost").await;
    assert_eq!(said(&a, &one, "one").await, facts([(&one, "one")]));
}

async fn who_resigns_is_forgotten(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let [one, two] = [life(), life()];
    begin(&a, &one).await;
    begin(&b, &two).await;
    said(&b, &two, "two").await;
    b.resign(&two).await.expect("an answer");
    assert_eq!(said(&a, &one, "one").await, facts([(&one, "one")]));
}
