use proptest::prelude::*;

use super::*;

const NOW: UnixSeconds = 1_000;

fn revocation(subject: Subject, issued_before: u64, forget_after: u64) -> Revocation {
    Revocation {
        subject,
        issued_before,
        forget_after,
    }
}

fn user(id: &str) -> Subject {
    Subject::User(id.into())
}

fn identity(user_id: &str, issued_at: Option<u64>, token_id: Option<&str>) -> Identity {
    Identity {
        user_id: user_id.into(),
        user_json: "{}".into(),
        grants: None,
        token_id: token_id.map(Into::into),
        issued_at: issued_at.into(),
        is_probe: false,
        amendment: None,
    }
}

#[test]
fn a_user_is_hit_by_the_second_of_issue() {
    let known = Revocations::of(&[revocation(user("ann"), 900, 2_000)], NOW);
    for (user, issued_at, expected) in [
        ("ann", Some(899), Some(Hit::User)),
        ("ann", Some(900), Some(Hit::User)),
        ("ann", Some(901), None),
        ("ann", None, Some(Hit::User)),
        ("bob", Some(1), None),
        ("bob", None, None),
    ] {
        let judged = known.judge(&identity(user, issued_at, Some("t1")), Some("s-1"), NOW);
        assert_eq!(judged, expected, "{user} {issued_at:?}");
    }
}

#[test]
fn a_session_and_a_token_are_hit_whenever_they_were_issued() {
    let known = Revocations::of(
        &[
            revocation(Subject::Session("s-1".into()), 900, 2_000),
            revocation(Subject::Token("t1".into()), 900, 2_000),
        ],
        NOW,
    );
    let ann = |token| identity("ann", Some(950), token);
    assert_eq!(known.judge(&ann(None), Some("s-1"), NOW), Some(Hit::Session));
    assert_eq!(known.judge(&ann(None), Some("s-2"), NOW), None);
    assert_eq!(known.judge(&ann(None), None, NOW), None);
    assert_eq!(known.judge(&ann(Some("t1")), None, NOW), Some(Hit::Token));
    assert_eq!(known.judge(&ann(Some("t2")), None, NOW), None);
    // A kind is never taken for another.
    assert_eq!(
        known.judge(&identity("t1", Some(1), Some("s-1")), Some("t1"), NOW),
        None
    );
}

#[test]
fn what_may_be_forgotten_counts_no_more() {
    let mut known = Revocations::of(
        &[revocation(user("ann"), 1_100, 1_100), revocation(user("bob"), 1, 5_000)],
        NOW,
    );
    let ann = identity("ann", Some(950), None);
    assert_eq!(known.judge(&ann, None, 1_100), Some(Hit::User));
    assert_eq!(known.judge(&ann, None, 1_101), None, "the ban is over");
    assert_eq!(known.len(), 2);
    known.forget(1_101);
    assert_eq!(
        known.iter().map(|entry| entry.subject).collect::<Vec<_>>(),
        [user("bob")]
    );
    assert_eq!(known.add(&revocation(user("ann"), 1_100, 1_100), 1_101), Ok(false));
    assert_eq!(known.len(), 1);
}

#[test]
fn a_full_house_takes_nobody_new_but_knows_more_of_who_is_in() {
    let mut known = Revocations::of(&[revocation(user("ann"), 900, 2_000)], NOW);
    assert_eq!(
        known.add_at_most(&revocation(user("bob"), 900, 2_000), NOW, 1),
        Err(Full)
    );
    assert_eq!(
        known.add_at_most(&revocation(user("ann"), 901, 2_000), NOW, 1),
        Ok(true)
    );
    known.forget(2_001);
    assert_eq!(
        known.add_at_most(&revocation(user("bob"), 900, 3_000), 2_001, 1),
        Ok(true)
    );
}

#[test]
fn the_difference_is_what_the_other_lacks() {
    let known = Revocations::of(
        &[
            revocation(user("ann"), 900, 2_000),
            revocation(user("bob"), 900, 2_000),
            revocation(Subject::Token("t1".into()), 900, 2_000),
            revocation(user("past"), 900, 1_000),
        ],
        NOW,
    );
    let there = [
        revocation(user("ann"), 950, 3_000),
        revocation(user("bob"), 950, 1_999),
        revocation(user("eve"), 1, 9_000),
    ];
    let mut lacking = known.lacking_in(Revocations::of(&there, NOW), 1_001);
    lacking.sort_unstable_by(|a, b| a.subject.cmp(&b.subject));
    assert_eq!(
        lacking,
        [
            revocation(user("bob"), 900, 2_000),
            revocation(Subject::Token("t1".into()), 900, 2_000),
        ]
    );
    assert_eq!(known.lacking_in(known.clone(), NOW), []);
}

fn any_revocation() -> impl Strategy<Value = Revocation> {
    let subject = prop_oneof![
        "[a-c]".prop_map(|id| Subject::User(id.into())),
        "[a-c]".prop_map(|id| Subject::Session(id.into())),
        "[a-c]".prop_map(|id| Subject::Token(id.into())),
    ];
    (subject, 0..5_u64, NOW..NOW + 5).prop_map(|(subject, before, forget)| revocation(subject, before, forget))
}

proptest! {
    /// Two nodes that heard of different things, in different orders, know the same once each has what it lacked.
    #[test]
    fn nodes_that_exchange_what_they_lack_agree(
        here in prop::collection::vec(any_revocation(), 0..12),
        there in prop::collection::vec(any_revocation(), 0..12),
    ) {
        let (mut one, mut other) = (Revocations::of(&here, NOW), Revocations::of(&there, NOW));
        let to_other = one.lacking_in(other.clone(), NOW);
        let to_one = other.lacking_in(one.clone(), NOW);
        for entry in &to_other {
            other.add(entry, NOW).unwrap();
        }
        for entry in &to_one {
            one.add(entry, NOW).unwrap();
        }
        let all: Vec<_> = there.into_iter().rev().chain(here).collect();
        let sorted = |known: &Revocations| {
            let mut entries: Vec<_> = known.iter().collect();
            entries.sort_unstable_by(|a, b| a.subject.cmp(&b.subject));
            entries
        };
        prop_assert_eq!(sorted(&one), sorted(&other));
        prop_assert_eq!(sorted(&one), sorted(&Revocations::of(&all, NOW)));
    }
}
