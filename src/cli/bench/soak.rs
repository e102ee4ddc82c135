//! `bench soak`: what a long time does to a server. Connections publish, hold, and come and go; its memory is looked at
//! again and again, and every member checks that the messages of its room follow each other.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};

use super::broadcast::{self, Publisher};
use super::crew::{self, Crew, Phase, Stage, WARM_UP};
use super::idle;
use super::link::{self, Lost, Socket};
use super::meter::{Meter, Total};
use super::plan::{Plan, Work};
use super::process::Process;
use super::report::Report;
use crate::cli::Failure;

/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_secs(5);

/// Share of the run after which memory should no longer grow: by then buffers and histories are as full as they get.
const SETTLED: f64 = 0.25;

/// Opens all, lets them live, and reports how the server held up.
pub fn run(plan: Arc<Plan>, show: bool) -> Result<Report, Failure> {
    let mut crew = Crew::gather(plan.clone(), show)?;
    crew.open()?;
    let time = crew.begin();
    crew.wait(WARM_UP, "warming up");
    let before = crew.mark()?;
    let memory = watch_memory(&crew, time);
    let span = crew.since(&before)?;
    let (totals, meters) = crew.dismiss();
    let total = Total(&meters);

    let mut report = Report::new("soak", &plan);
    broadcast::describe(&mut report, &plan);
    let returned = total.sum(|meter| &meter.returned);
    report.add("returned", "left and came back", returned as f64, 0, "");
    report.add("deliveries", "deliveries", span.received as f64, 0, "");
    let rate = span.received as f64 / span.elapsed();
    report.add("deliveries_per_s", "deliveries per second", rate, 0, "/s");
    let holes = total.sum(|meter| &meter.holes);
    report.add("holes", "holes between messages", holes as f64, 0, "");
    report.add_latency(&total.latency());
    report.add_server_cpu(
        &span,
        span.received,
        "server_cpu_us_per_delivery",
        "server CPU per delivery",
    );
    match &memory {
        Some(memory) => memory.add_to(&mut report),
        None => report.note("with --pid SERVER_PID there are also CPU and memory of the server".to_owned()),
    }
    report.add_client(&span, &plan);
    report.add_losses(&totals);
    if holes > 0 {
        report.incomplete(format!("{holes} messages did not follow the one before them"));
    }
    Ok(report)
}

/// The server's resident memory over time.
struct Memory {
    /// Seconds since the first look, KiB.
    looks: Vec<(f64, f64)>,
}

/// Looks at it until `time` has passed. None without `--pid`, or when the server is gone.
fn watch_memory(crew: &Crew, time: Duration) -> Option<Memory> {
    let (begun, mut looks) = (Instant::now(), Vec::new());
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        if let Some(kib) = crew
            .stage
            .plan
            .server
            .and_then(|server| Process::memory_kib(server).ok())
        {
            looks.push((begun.elapsed().as_secs_f64(), kib as f64));
        }
        crew.wait(left.min(LOOK), "soaking");
    }
    (!looks.is_empty()).then_some(Memory { looks })
}

impl Memory {
    fn add_to(&self, report: &mut Report) {
        let end = self.looks.last().map_or(0.0, |(at, _)| *at);
        let late: Vec<_> = self
            .looks
            .iter()
            .filter(|(at, _)| *at >= end * SETTLED)
            .copied()
            .collect();
        let mib = |kib: Option<&(f64, f64)>| kib.map_or(f64::NAN, |(_, kib)| kib / 1_024.0);
        let highest = self.looks.iter().map(|(_, kib)| kib / 1_024.0).fold(0.0, f64::max);
        report.add(
            "memory_first_mib",
            "server memory at the beginning",
            mib(self.looks.first()),
            1,
            "MiB",
        );
        report.add(
            "memory_settled_mib",
            "server memory after a quarter",
            mib(late.first()),
            1,
            "MiB",
        );
        report.add(
            "memory_last_mib",
            "server memory at the end",
            mib(late.last()),
            1,
            "MiB",
        );
        report.add("memory_max_mib", "server memory at most", highest, 1, "MiB");
        let growth = slope(&late) * 3_600.0 / 1_024.0;
        report.add("memory_growth_mib_per_h", "growth after a quarter", growth, 2, "MiB/h");
    }
}

/// By least squares, of y over x; 0 for fewer than two.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if spread > 0.0 { both / spread } else { 0.0 }
}

/// A member that publishes, or one that leaves and comes back now and then.
pub async fn live(
    connection: usize,
    mut socket: Socket,
    mut phases: watch::Receiver<Phase>,
    stage: &Stage,
    meter: &Meter,
    permits: &Semaphore,
) -> Result<(), Lost> {
    let Work::Soak { stay, .. } = stage.plan.work else {
        return idle::live(socket, phases).await;
    };
    let mut publisher = Publisher::of(connection, &stage.plan);
    if publisher.is_some() {
        return stay_until(None, connection, &mut publisher, socket, &mut phases, stage, meter)
            .await
            .map(drop);
    }
    // As if they had come at any time before: who comes and goes is spread evenly.
    let mut share = 0.5 + random();
    let mut first = random();
    loop {
        let until = tokio::time::Instant::now() + stay.mul_f64(share * first);
        if stay_until(Some(until), connection, &mut None, socket, &mut phases, stage, meter).await? {
            return Ok(());
        }
        socket = {
            let _permit = permits.acquire().await;
            crew::open(connection, stage).await?
        };
        meter.returned.fetch_add(1, Relaxed);
        (share, first) = (0.5 + random(), 1.0);
    }
}

/// Lives on this socket until then, or the end of the run (true), and closes it.
async fn stay_until(
    until: Option<tokio::time::Instant>,
    connection: usize,
    publisher: &mut Option<Publisher>,
    mut socket: Socket,
    phases: &mut watch::Receiver<Phase>,
    stage: &Stage,
    meter: &Meter,
) -> Result<bool, Lost> {
    let mut phase = *phases.borrow_and_update();
    if let (Phase::Run, Some(publisher)) = (phase, publisher.as_mut()) {
        publisher.begin(tokio::time::Instant::now());
    }
    let (mut newest, mut is_over) = (None, phase == Phase::Stop);
    while !is_over {
        let due = (publisher.as_ref())
            .filter(|_| phase == Phase::Run)
            .and_then(Publisher::due);
        tokio::select! {
            biased;
            changed = phases.changed() => {
                phase = if changed.is_ok() { *phases.borrow_and_update() } else { Phase::Stop };
                is_over = phase == Phase::Stop;
                if let (Phase::Run, Some(publisher)) = (phase, publisher.as_mut()) {
                    publisher.begin(tokio::time::Instant::now());
                }
            }
            read = socket.next() => {
                if let Some(text) = link::text_of(read)? {
                    let own = broadcast::receive(text.as_bytes(), connection, stage, meter);
                    if own && let Some(publisher) = publisher.as_mut() {
                        publisher.returned();
                    }
                    if let Some(seq) = seq_of_chat(&text) {
                        if newest.is_some_and(|newest| seq != newest + 1) {
                            meter.holes.fetch_add(1, Relaxed);
                        }
                        newest = Some(seq);
                    }
                }
            }
            () = broadcast::sleep_until(due), if due.is_some() => {
                if let Some(publisher) = publisher.as_mut() && !publisher.publish(&mut socket, stage, meter).await? {
                    phase = Phase::Open;
                }
            }
            () = broadcast::sleep_until(until), if until.is_some() && phase == Phase::Run => break,
        }
    }
    idle::close(socket).await?;
    Ok(is_over)
}

/// The number of a chat, which is what is not a reply (`list` and `history` have messages in them).
fn seq_of_chat(text: &str) -> Option<u64> {
    if !text.starts_with(r#"{"type":"chat""#) {
        return None;
    }
    let digits = text.split_once(r#""seq":"#)?.1;
    let end = digits
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// From 0 to 1.
fn random() -> f64 {
    (uuid::Uuid::new_v4().as_u128() >> 96) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_line_has_its_slope() {
        let line: Vec<_> = (0..10).map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x))).collect();
        assert!((slope(&line) - 3.0).abs() < 1e-9);
        assert!(slope(&[(1.0, 7.0)]).abs() < 1e-9 && slope(&[]).abs() < 1e-9);
    }

    #[test]
    fn chats_are_told_by_their_number() {
        assert_eq!(seq_of_chat(r#"{"type":"chat","room":"r","seq":17,"id":1}"#), Some(17));
        assert_eq!(seq_of_chat(r#"{"type":"list","seq":17}"#), None);
        assert_eq!(seq_of_chat(r#"{"type":"chat"}"#), None);
    }
}
