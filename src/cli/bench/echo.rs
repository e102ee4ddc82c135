//! `bench echo`: one message at a time, there and back, over `/echo`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::crew::{Crew, Phase, Stage};
use super::idle;
use super::link::{self, Lost, Socket};
use super::meter::{Meter, Total};
use super::plan::Plan;
use super::report::Report;
use super::stamp::Stamp;
use crate::cli::Failure;

/// Longest wait for the first echo.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Opens all, lets every one of them ping-pong, and reports.
pub fn run(plan: Arc<Plan>, show: bool) -> Result<Report, Failure> {
    let mut crew = Crew::gather(plan.clone(), show)?;
    crew.open()?;
    let span = crew.measure()?;
    crew.drain();
    let (totals, meters) = crew.dismiss();
    let total = Total(&meters);
    let (measured, expected) = (total.sum(|meter| &meter.measured), total.sum(|meter| &meter.expected));

    let mut report = Report::new("echo", &plan);
    report.add("seconds", "measured", f64::from(plan.seconds), 0, "s");
    report.add(
        "messages_per_s",
        "round trips per second",
        span.received as f64 / span.elapsed(),
        0,
        "/s",
    );
    report.add(
        "echo_ratio",
        "echo ratio",
        measured as f64 / expected.max(1) as f64,
        6,
        "",
    );
    report.add_latency(&total.latency());
    report.add_server_cpu(
        &span,
        span.received,
        "server_cpu_us_per_message",
        "server CPU per message",
    );
    report.add_server_memory(plan.server);
    report.add_client(&span, &plan);
    report.add_losses(&totals);
    if measured == 0 || measured != expected {
        report.incomplete(format!("{measured} of {expected} echoes came"));
    }
    Ok(report)
}

/// One echo, to see that the server has let us in.
pub async fn probe(socket: &mut Socket) -> Result<(), Lost> {
    let round_trip = async {
        socket.send(Message::text("probe")).await?;
        while link::text_of(socket.next().await)?.is_none() {}
        Ok(())
    };
    tokio::time::timeout(PROBE_LIMIT, round_trip)
        .await
        .unwrap_or(Err(Lost::Timeout))
}

/// Sends the next when the one before is back.
pub async fn live(
    connection: usize,
    size: usize,
    mut socket: Socket,
    mut phases: watch::Receiver<Phase>,
    stage: &Stage,
    meter: &Meter,
) -> Result<(), Lost> {
    loop {
        tokio::select! {
            // Neither branch loses anything when it is dropped: the socket keeps what it has read.
            biased;
            changed = phases.changed() => match changed.map(|()| *phases.borrow_and_update()) {
                Ok(Phase::Open) => {}
                Ok(Phase::Run) => send(connection, size, &mut socket, stage, meter).await?,
                Ok(Phase::Stop) | Err(_) => break,
            },
            read = socket.next() => {
                let Some(stamp) = link::text_of(read)?.and_then(|text| Stamp::find(text.as_bytes())) else { continue };
                let measured = stage.measures(stamp.nanoseconds);
                meter.delivered(measured.then(|| stage.now().saturating_sub(stamp.nanoseconds)));
                send(connection, size, &mut socket, stage, meter).await?;
            }
        }
    }
    idle::close(socket).await
}

async fn send(connection: usize, size: usize, socket: &mut Socket, stage: &Stage, meter: &Meter) -> Result<(), Lost> {
    let now = stage.now();
    if stage.is_over(now) {
        return Ok(());
    }
    if stage.measures(now) {
        meter.published(1);
    }
    let mut text = String::with_capacity(size);
    Stamp {
        nanoseconds: now,
        connection: u32::try_from(connection).unwrap_or(u32::MAX),
    }
    .write(size, &mut text);
    socket.send(Message::text(text)).await?;
    Ok(())
}
