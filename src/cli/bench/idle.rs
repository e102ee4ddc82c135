//! `bench idle`: connections that do nothing, which is what most connections do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;

use super::crew::{Crew, Phase};
use super::link::{self, Lost, Socket};
use super::plan::Plan;
use super::report::Report;
use crate::cli::Failure;

/// Between opening and reading memory, so that what a handshake needed is free again.
const SETTLE: Duration = Duration::from_secs(1);

/// Opens all, holds them, and reports both.
pub fn run(plan: Arc<Plan>, show: bool) -> Result<Report, Failure> {
    let mut crew = Crew::gather(plan.clone(), show)?;
    let memory = || plan.server.map(super::process::Process::memory_kib).transpose();
    let empty = memory()?;
    let begun = crew.mark()?;
    crew.open()?;
    let opening = crew.since(&begun)?;
    crew.wait(SETTLE, "settling");
    let opened = memory()?;
    let before = crew.mark()?;
    crew.wait(Duration::from_secs(plan.seconds.into()), "holding");
    let holding = crew.since(&before)?;
    let held = memory()?;
    let count = crew.opened() as f64;
    let (totals, _) = crew.dismiss();

    let mut report = Report::new("idle", &plan);
    report.add("rooms", "rooms", plan.rooms as f64, 0, "");
    report.add("opened", "opened", count, 0, "");
    report.add("open_seconds", "time to open all", opening.elapsed(), 2, "s");
    report.add(
        "handshakes_per_s",
        "handshakes per second",
        count / opening.elapsed(),
        0,
        "/s",
    );
    if let Some(cpu) = opening.server_cpu {
        report.add(
            "server_cpu_ms_per_handshake",
            "server CPU per handshake",
            cpu.as_secs_f64() * 1e3 / count,
            3,
            "ms",
        );
    }
    let per_connection = |now: Option<u64>| Some((now? as f64 - empty? as f64) / count);
    if let Some((first, later)) = per_connection(opened).zip(per_connection(held)) {
        report.add(
            "server_kib_per_connection_opened",
            "server memory per connection, at once",
            first,
            2,
            "KiB",
        );
        report.add(
            "server_kib_per_connection",
            "server memory per connection, held",
            later,
            2,
            "KiB",
        );
    }
    report.add("hold_seconds", "held for", holding.elapsed(), 1, "s");
    if let Some(cpu) = holding.server_cpu {
        report.add(
            "server_cpu_percent_idle",
            "server CPU while held",
            cpu.as_secs_f64() / holding.elapsed() * 100.0,
            2,
            "%",
        );
    }
    report.add_server_memory(plan.server);
    report.add_client(&opening, &plan);
    report.add_losses(&totals);
    if plan.server.is_none() && plan.target.is_here() {
        report.note("with --pid SERVER_PID there are also CPU and memory of the server".to_owned());
    }
    Ok(report)
}

/// Answers pings, and nothing else.
pub async fn live(mut socket: Socket, mut phases: watch::Receiver<Phase>) -> Result<(), Lost> {
    loop {
        tokio::select! {
            // Neither branch loses anything when it is dropped: the socket keeps what it has read.
            _ = phases.wait_for(|phase| *phase == Phase::Stop) => break,
            read = socket.next() => { link::text_of(read)?; }
        }
    }
    close(socket).await
}

/// Says goodbye, and does not wait for the answer.
pub async fn close(mut socket: Socket) -> Result<(), Lost> {
    // The run is over: a server that is gone by now is no loss.
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
    Ok(())
}
