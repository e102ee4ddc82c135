//! Revocations and kicks reach every node.

use conclave::backplane::contract::{Control, Revocation, Subject};
use conclave::runtime::now_ms;

use super::super::engines::Engine;
use super::super::peer::Peer;

super::promises! {
    every_node_hears_what_one_tells_in_order
    revocations_are_kept_and_only_ever_add
    what_is_known_is_merged_and_only_news_is_told
    odd_subjects_are_told_apart
}

fn user(name: &str) -> Subject {
    Subject::User(name.into())
}

fn revocation(subject: Subject, issued_before: u64) -> Revocation {
    Revocation {
        subject,
        issued_before,
        forget_after: now_ms() / 1_000 + 3_600,
    }
}

fn kick(subject: Subject) -> Control {
    Control::Kick {
        subject,
        time_ms: now_ms(),
    }
}

async fn tell(peer: &Peer, control: &Control) {
    peer.tell(control).await.expect("an answer");
}

/// What a node was told up to `last`, without repeats.
async fn told(peer: &Peer, last: &Control) -> Vec<Control> {
    peer.heard
        .until("the last of what was told", |heard| {
            let mut distinct = Vec::new();
            for control in &heard.control {
                if !distinct.contains(control) {
                    distinct.push(control.clone());
                }
            }
            distinct.contains(last).then_some(distinct)
        })
        .await
}

async fn kept(peer: &Peer) -> Vec<Revocation> {
    let mut kept = peer.revocations().await.expect("an answer");
    kept.sort_by(|one, other| one.subject.cmp(&other.subject));
    kept
}

async fn every_node_hears_what_one_tells_in_order(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let mut all = Vec::new();
    for at in 0..5 {
        all.push(Control::Revoke(revocation(user(&format!("u{at}")), 100 + at)));
        all.push(kick(Subject::Session(format!("s-{at}").into())));
        all.push(Control::Revoke(revocation(Subject::Token(format!("t{at}").into()), 7)));
    }
    for (at, control) in all.iter().enumerate() {
        tell(if at % 2 == 0 { &a } else { &b }, control).await;
    }
    for peer in [&a, &b] {
        assert_eq!(told(peer, &all[14]).await, all, "the teller hears it too");
    }
}

async fn revocations_are_kept_and_only_ever_add(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let first = revocation(user("ann"), 500);
    let earlier = Revocation {
        issued_before: 400,
        forget_after: first.forget_after + 100,
        ..first.clone()
    };
    tell(&a, &Control::Revoke(first.clone())).await;
    assert_eq!(kept(&b).await, [first]);
    tell(&b, &Control::Revoke(earlier.clone())).await;
    tell(&b, &kick(user("eve"))).await;
    let merged = Revocation {
        issued_before: 500,
        ..earlier
    };
    for peer in [&a, &b] {
        assert_eq!(
            kept(peer).await,
            std::slice::from_ref(&merged),
            "the later of each time, and no kick"
        );
    }
}

async fn what_is_known_is_merged_and_only_news_is_told(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let (old, new) = (revocation(user("ann"), 500), revocation(user("bob"), 600));
    tell(&a, &Control::Revoke(old.clone())).await;
    told(&b, &Control::Revoke(old.clone())).await;
    let earlier = Revocation {
        issued_before: 400,
        ..old.clone()
    };
    let told_before = b.heard.read(|heard| heard.control.len());
    a.merge_revocations(&[earlier, new.clone()]).await.expect("an answer");
    a.merge_revocations(&[new.clone(), old.clone()])
        .await
        .expect("an answer");
    a.merge_revocations(&[]).await.expect("an answer");
    let fence = kick(user("fence"));
    tell(&a, &fence).await;
    told(&b, &fence).await;
    let since = b.heard.read(|heard| heard.control[told_before..].to_vec());
    let news: Vec<_> = since
        .iter()
        .filter(|control| !matches!(control, Control::Revoke(entry) if *entry == old))
        .collect();
    assert!(news.contains(&&Control::Revoke(new.clone())), "{news:?}");
    assert!(
        news.iter()
            .all(|control| **control == fence || **control == Control::Revoke(new.clone())),
        "{news:?}"
    );
    assert_eq!(kept(&b).await, [old, new]);
}

async fn odd_subjects_are_told_apart(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let longest = "u".repeat(256);
    let names = [
        "ann", "Ann", "a:b", "a b", "user:ann", "ü 🦀", "{x}", "*", "a.b", "\"", &longest,
    ];
    let mut all = Vec::new();
    for name in names {
        all.push(revocation(Subject::User(name.into()), 1));
        all.push(revocation(Subject::Session(name.into()), 2));
        all.push(revocation(Subject::Token(name.into()), 3));
    }
    a.merge_revocations(&all).await.expect("an answer");
    for entry in &all {
        told(&b, &Control::Revoke(entry.clone())).await;
    }
    all.sort_by(|one, other| one.subject.cmp(&other.subject));
    assert_eq!(kept(&b).await, all);
}
