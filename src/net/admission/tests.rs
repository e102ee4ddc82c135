//! The line, the pace and the bounds between them, over a paused clock.

use std::pin::Pin;

use super::*;
use crate::config::default_config;
use crate::telemetry::metrics::BuildInfo;

const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

pub(super) fn metrics() -> Arc<Metrics> {
    Metrics::install(BuildInfo {
        version: "0",
        revision: "0",
        rustc: "0",
        backplane: "memory",
    })
}

fn admission(change: impl FnOnce(&mut Config)) -> Arc<Admission> {
    let mut config = default_config();
    config.limits.handshake_cpu_share = 0.5;
    change(&mut config);
    Admission::new(&config, 1, metrics())
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Turn, AdmissionRefusal>> + 'a>>;

/// Puts as many in line as are let in, at most `max`.
fn fill<'a>(admission: &'a Admission, address: IpAddr, max: usize) -> Vec<Waiting<'a>> {
    let mut line = Vec::new();
    for _ in 0..max {
        let mut place: Waiting<'a> = Box::pin(admission.turn(0, address, false));
        match futures_util::FutureExt::now_or_never(place.as_mut()) {
            None => line.push(place),
            Some(Err(AdmissionRefusal::LineFull)) => break,
            Some(other) => panic!("a place or none: {other:?}"),
        }
    }
    line
}

/// As [`admission`], whose only handshake in flight is the one returned.
async fn busy(change: impl FnOnce(&mut Config)) -> (Arc<Admission>, Turn) {
    let admission = admission(|config| {
        config.limits.handshakes_in_flight = 1;
        change(config);
    });
    let running = admission.turn(0, ANN, false).await.expect("the first runs at once");
    (admission, running)
}

#[test]
fn dear_handshakes_take_more_than_their_share_up_to_a_half() {
    let admission = admission(|config| config.limits.handshake_cpu_share = 0.08);
    let learned = |cost_ns| {
        for _ in 0..1_000 {
            admission.learn(cost_ns);
        }
        admission.accepts_per_second()
    };
    assert!((790..=810).contains(&learned(100_000)), "8 % of a core");
    assert!(
        (240..=250).contains(&learned(1_000_000)),
        "the least, for a quarter of a core"
    );
    assert!((48..=51).contains(&learned(10_000_000)), "half of a core");
}

#[tokio::test]
async fn the_line_is_as_long_as_can_be_served_in_time() {
    let (admission, _running) = busy(|config| config.limits.handshake_wait = Duration::from_millis(500)).await;
    let per_second = admission.accepts_per_second() as usize;
    let line = fill(&admission, ANN, 100_000);
    assert!(
        line.len().abs_diff(per_second / 2) <= 1,
        "{} of {per_second}",
        line.len()
    );
    assert_eq!(admission.waiting(), line.len());
    drop(line);
    assert_eq!(admission.waiting(), 0, "who gives up leaves the line");
    for _ in 0..1_000 {
        admission.learn(COST_MAX_NS);
    }
    assert!((admission.accepts_per_second() as usize) < per_second / 20);
    assert_eq!(
        fill(&admission, ANN, 100_000).len(),
        PLACES_MIN,
        "dear handshakes make it short"
    );
}

#[tokio::test]
async fn the_pacer_serves_who_waits_in_turn() {
    let (admission, running) = busy(|_| {}).await;
    let tasks = Tasks::default();
    admission.start(0, &tasks);
    let mut line = fill(&admission, ANN, 3);
    line.extend(fill(&admission, BOB, 1));
    drop(running);
    let bob = line.pop().expect("the last in line");
    let ann = line.remove(0).await.expect("her turn");
    assert!(ann.has_waited);
    drop(ann);
    drop(bob.await.expect("his turn comes second, before the rest of hers"));
    for place in line {
        drop(place.await.expect("theirs at last"));
    }
    tasks.stop_services();
}

#[tokio::test]
async fn a_flood_from_one_address_gives_way_to_others() {
    let (admission, _running) = busy(|config| config.limits.handshake_wait = Duration::from_millis(10)).await;
    let mut flood = fill(&admission, ANN, 100_000);
    assert_eq!(flood.len(), PLACES_MIN);
    let other = fill(&admission, BOB, 1);
    assert_eq!(other.len(), 1);
    let last = flood.pop().expect("the flood is there");
    assert_eq!(last.await.err(), Some(AdmissionRefusal::AddressShare));
    assert_eq!(admission.waiting(), PLACES_MIN);
}

#[tokio::test]
async fn an_address_shakes_hands_so_often_and_no_more() {
    let admission = admission(|config| config.limits.handshakes_per_address_per_second = 2);
    for _ in 0..2 {
        drop(admission.turn(0, ANN, false).await.expect("within the rate"));
    }
    assert_eq!(
        admission.turn(0, ANN, false).await.err(),
        Some(AdmissionRefusal::AddressRate)
    );
    let other = futures_util::FutureExt::now_or_never(admission.turn(0, BOB, false));
    assert!(!matches!(other, Some(Err(_))), "another address is not hit by it");
    let text = admission.metrics.render();
    assert!(text.contains(r#"conclave_rate_limited_total{limit="handshakes_per_address_per_second"} 1"#));
    assert!(text.contains(r#"conclave_admission_refused_total{stage="tls",reason="address_rate"} 1"#));
}

#[tokio::test]
async fn what_is_measured_is_what_the_thread_computed() {
    let admission = admission(|_| {});
    let meter = Meter::default();
    let work = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut sum = 0_u64;
        while meter_after(&mut sum) < 2_000_000 {}
        sum
    };
    let sum = admission.measure(&meter, 0, work).await;
    assert!(sum > 0);
    let spent = meter.spent_ns();
    assert!(
        (2_000_000..40_000_000).contains(&spent),
        "computing counts, waiting does not: {spent}"
    );
    assert_eq!(admission.handshake_cpu(), Duration::from_nanos(spent));
    assert!(!admission.gates[0].state.lock().pace.wait(admission.now_ns()).is_zero());
}

/// Computes a little; nanoseconds of this thread since the first call with this `sum`.
fn meter_after(sum: &mut u64) -> u64 {
    let before = meter::thread_cpu_ns();
    for number in 0..10_000_u64 {
        *sum = std::hint::black_box(sum.wrapping_add(number));
    }
    SPENT.with(|spent| {
        spent.set(spent.get() + meter::thread_cpu_ns() - before);
        spent.get()
    })
}

thread_local! {
    static SPENT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}
