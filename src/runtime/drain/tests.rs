use std::collections::BTreeSet;

use proptest::prelude::*;

use super::plan::{Outlook, Room, Slots, plan};
use super::*;

fn alone(clients: u64, time_seconds: u64) -> Outlook {
    Outlook {
        clients,
        grace: Duration::from_secs(5),
        time: Duration::from_secs(time_seconds),
        accepts_per_second: 1_000,
        others: Vec::new(),
    }
}

fn among(clients: u64, time_seconds: u64, others: &[(u32, u64)]) -> Outlook {
    let others = others.iter().map(|&(accepts_per_second, free)| Room {
        accepts_per_second,
        free,
    });
    Outlook {
        others: others.collect(),
        ..alone(clients, time_seconds)
    }
}

/// (told at, back at) of every client, in seconds from the first close; dice fall in the middle.
fn run(outlook: &Outlook) -> Vec<(f64, f64)> {
    let slots = Slots::new(outlook);
    let (mut told, mut all) = (0, Vec::new());
    for slice in 0_u32.. {
        let elapsed = f64::from(slice) * SLICE.as_secs_f64();
        for index in told..slots.due(elapsed) {
            let after_ms = slots.reconnect_after_ms(index, elapsed, 0.5, 0.5);
            all.push((elapsed, elapsed + after_ms as f64 / 1_000.0));
        }
        told = told.max(slots.due(elapsed));
        if told as u64 >= outlook.clients {
            return all;
        }
    }
    unreachable!("a drain ends")
}

#[test]
fn with_other_nodes_clients_return_as_they_are_let_go() {
    let outlook = among(3_000, 20, &[(1_000, 50_000), (1_000, 50_000)]);
    let plan = plan(&outlook);
    assert_eq!(
        (plan.clients, plan.others, plan.moving, plan.fits),
        (3_000, 2, 3_000, true)
    );
    assert_eq!((plan.grace_seconds, plan.closing_seconds), (5.0, 16.0));
    assert_eq!((plan.end_seconds, plan.deadline_seconds), (21.0, 25.0));
    assert_eq!(plan.returns_per_second, 187.5);
    assert!((21.0..=23.0).contains(&plan.last_return_seconds), "{plan:?}");
    for (told, back) in run(&outlook) {
        assert!((0.1..1.3).contains(&(back - told)), "{told} {back}");
    }
}

#[test]
fn alone_they_come_back_once_the_successor_can_be_there() {
    let outlook = alone(3_000, 20);
    let plan = plan(&outlook);
    assert_eq!((plan.others, plan.moving, plan.fits), (0, 0, true));
    // 3,000 at 500 a second, from the end of the drain time on.
    assert!((31.0..=32.2).contains(&plan.last_return_seconds), "{plan:?}");
    let all = run(&outlook);
    assert!(all.iter().all(|&(_, back)| back >= 20.0));
    assert!(all.last().unwrap().0 >= 15.9, "closes take their share of the time");
}

#[test]
fn what_does_not_fit_is_said_and_slots_go_beyond_the_drain_time() {
    // Half of 100 a second, for 10,000 clients.
    let slow = plan(&among(10_000, 20, &[(100, 50_000)]));
    assert!(!slow.fits && slow.returns_per_second == 50.0, "{slow:?}");
    assert!((205.0..=208.0).contains(&slow.last_return_seconds), "{slow:?}");
    assert!(!plan(&alone(100_000, 20)).fits);
    // There is room for 100; the rest comes back here.
    let narrow = plan(&among(300, 20, &[(1_000, 60), (1_000, 40), (1_000, 0)]));
    assert_eq!((narrow.moving, narrow.others, narrow.fits), (100, 3, false));
    let full = plan(&among(300, 20, &[(1_000, 0)]));
    assert_eq!((full.moving, full.fits), (0, false));
    assert!(full.last_return_seconds >= 5.0 + 15.0 + 4.0, "{full:?}");
}

#[test]
fn slots_come_from_the_drain_time_and_from_the_number_of_clients() {
    let last = |outlook: &Outlook| plan(outlook).last_return_seconds;
    assert!(last(&alone(1_000, 40)) > last(&alone(1_000, 20)) + 15.0);
    assert!(last(&alone(50_000, 20)) > last(&alone(1_000, 20)) + 90.0);
    // A few do not take the whole time.
    assert!(plan(&alone(20, 600)).closing_seconds <= 1.0 && last(&alone(20, 600)) <= 5.0 + 1.0 + 5.0 + 0.5);
    let nobody = plan(&alone(0, 20));
    assert_eq!((nobody.end_seconds, nobody.last_return_seconds), (5.0, 5.0));
    assert!(nobody.fits && nobody.returns_per_second == 0.0);
}
#[test]
fn without_any_drain_time_all_are_told_at_once() {
    let outlook = alone(10, 0);
    let all = run(&outlook);
    assert!(all.iter().all(|&(told, back)| told == 0.0 && back >= 1.1), "{all:?}");
    assert!(plan(&outlook).fits);
    assert!(run(&among(10, 0, &[(100, 100)])).iter().all(|&(_, back)| back < 0.4));
}

fn outlooks() -> impl Strategy<Value = Outlook> {
    let others = prop::collection::vec((0_u32..2_000, 0_u64..5_000), 0..4);
    (0_u64..8_000, 0_u64..60, 1_u32..3_000, others).prop_map(|(clients, time, own, others)| Outlook {
        accepts_per_second: own,
        ..among(clients, time, &others)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the numbers: everybody is told within the closing time, nobody is sent back at once or faster than
    /// is taken in any second, and the last one returns when the plan says.
    #[test]
    fn nobody_is_sent_back_faster_than_he_is_taken(outlook in outlooks(), seed in any::<u64>()) {
        let (slots, plan, mut dice) = (Slots::new(&outlook), plan(&outlook), Dice(seed));
        let mut returns = [Vec::new(), Vec::new()];
        for index in 0..usize::try_from(outlook.clients).unwrap() {
            let at = slots.returns_at(index, dice.share(), dice.share());
            prop_assert!(at >= 0.1);
            prop_assert!(at <= plan.last_return_seconds - plan.grace_seconds + 0.001);
            returns[usize::from(index as u64 >= plan.moving)].push(at);
        }
        let others: u32 = outlook.others.iter().filter(|room| room.free > 0).map(|room| room.accepts_per_second).sum();
        for (mut returns, rate) in returns.into_iter().zip([others, outlook.accepts_per_second]) {
            returns.sort_by(f64::total_cmp);
            let most = (0..returns.len())
                .map(|first| returns[first..].partition_point(|at| *at < returns[first] + 1.0))
                .max();
            // Half of what is taken, and what dice do at their worst.
            let share = f64::from(rate) / 2.0;
            prop_assert!(most.unwrap_or(0) as f64 <= share + 5.0 * share.sqrt() + 2.0, "{most:?} of {rate}");
        }
        let closing = plan.closing_seconds;
        prop_assert_eq!(slots.due(closing) as u64, outlook.clients);
        let half = slots.due(closing / 2.0) as f64;
        prop_assert!(closing == 0.0 || (half - outlook.clients as f64 / 2.0).abs() <= 1.0);
    }
}

#[test]
fn dice_are_even() {
    let mut dice = Dice::new();
    let shares: Vec<_> = (0..4_000).map(|_| dice.share()).collect();
    assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
    let mean = shares.iter().sum::<f64>() / 4_000.0;
    assert!((0.45..0.55).contains(&mean), "{mean}");
    let seen: BTreeSet<_> = (0..200).map(|_| dice.below(5)).collect();
    assert_eq!(seen, (0..5).collect());
}
