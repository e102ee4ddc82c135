//! `bench broadcast`: some connections publish, every member of their room must get it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::crew::{Crew, Phase, Stage};
use super::idle;
use super::link::{self, Lost, Socket};
use super::meter::{Meter, Total};
use super::plan::{Pace, Plan, Publishers};
use super::report::Report;
use super::stamp::Stamp;
use crate::cli::Failure;

/// Opens all, lets publishers publish, and reports what came.
pub fn run(plan: Arc<Plan>, show: bool) -> Result<Report, Failure> {
    let mut crew = Crew::gather(plan.clone(), show)?;
    crew.open()?;
    let span = crew.measure()?;
    crew.drain();
    let (totals, meters) = crew.dismiss();
    let total = Total(&meters);
    let (measured, expected) = (total.sum(|meter| &meter.measured), total.sum(|meter| &meter.expected));
    let seconds = f64::from(plan.seconds);

    let mut report = Report::new("broadcast", &plan);
    describe(&mut report, &plan);
    report.add(
        "published_per_s",
        "published per second",
        total.sum(|meter| &meter.published) as f64 / seconds,
        1,
        "/s",
    );
    report.add(
        "deliveries_per_s",
        "deliveries per second",
        span.received as f64 / span.elapsed(),
        0,
        "/s",
    );
    report.add(
        "delivery_ratio",
        "delivery ratio",
        measured as f64 / expected.max(1) as f64,
        6,
        "",
    );
    report.add_latency(&total.latency());
    report.add_server_cpu(
        &span,
        span.received,
        "server_cpu_us_per_delivery",
        "server CPU per delivery",
    );
    report.add_server_memory(plan.server);
    report.add_client(&span, &plan);
    let lag = total.max(|meter| &meter.lag_nanoseconds) as f64 / 1e6;
    report.add(
        "publisher_lag_max_ms",
        "latest publication after its time",
        lag,
        3,
        "ms",
    );
    report.add_losses(&totals);
    if expected == 0 {
        report.incomplete(
            "nothing was published in the window: --seconds is too short for --rate, or publishers did not connect"
                .to_owned(),
        );
    } else if measured != expected {
        report.incomplete(format!("{measured} of {expected} deliveries came"));
    }
    Ok(report)
}

/// What was asked for.
pub fn describe(report: &mut Report, plan: &Plan) {
    report.add("rooms", "rooms", plan.rooms as f64, 0, "");
    report.add("seconds", "measured", f64::from(plan.seconds), 0, "s");
    if let Some(Publishers { count, pace, size }) = plan.work.publishers() {
        report.add("publishers", "publishers", count as f64, 0, "");
        report.add("size_bytes", "size of a content", size as f64, 0, "B");
        match pace {
            Pace::Every(time) => report.add("rate_per_s", "rate of a publisher", 1.0 / time.as_secs_f64(), 2, "/s"),
            Pace::Window(window) => report.add("window", "flood window", f64::from(window), 0, ""),
        }
    }
}

/// A member, and a publisher too if it is one of the first connections.
pub async fn live(
    connection: usize,
    mut socket: Socket,
    mut phases: watch::Receiver<Phase>,
    stage: &Stage,
    meter: &Meter,
) -> Result<(), Lost> {
    let mut publisher = Publisher::of(connection, &stage.plan);
    let mut phase = Phase::Open;
    loop {
        let due = publisher
            .as_ref()
            .filter(|_| phase == Phase::Run)
            .and_then(Publisher::due);
        tokio::select! {
            // Neither branch loses anything when it is dropped; reading comes before sending, so that a
            // publisher's own reading never delays the measured room.
            biased;
            changed = phases.changed() => {
                phase = if changed.is_ok() { *phases.borrow_and_update() } else { Phase::Stop };
                match (phase, &mut publisher) {
                    (Phase::Stop, _) => break,
                    (Phase::Run, Some(publisher)) => publisher.begin(Instant::now()),
                    _ => {}
                }
            }
            read = socket.next() => {
                if let Some(text) = link::text_of(read)? {
                    let own = receive(text.as_bytes(), connection, stage, meter);
                    if own && let Some(publisher) = &mut publisher {
                        publisher.returned();
                    }
                }
            }
            () = sleep_until(due), if due.is_some() => {
                if let Some(publisher) = &mut publisher && !publisher.publish(&mut socket, stage, meter).await? {
                    phase = Phase::Open;
                }
            }
        }
    }
    idle::close(socket).await
}

/// At once when that is over, or nothing is due.
pub async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due.filter(|due| *due > Instant::now()) {
        tokio::time::sleep_until(due).await;
    }
}

/// Counts a message; answers whether it is one's own that came back.
pub fn receive(text: &[u8], connection: usize, stage: &Stage, meter: &Meter) -> bool {
    let Some(stamp) = Stamp::find(text) else {
        if text.starts_with(br#"{"type":"error""#) {
            meter.refused(&link::error_code(&String::from_utf8_lossy(text)));
        }
        return false;
    };
    let measured = stage.measures(stamp.nanoseconds);
    meter.delivered(measured.then(|| stage.now().saturating_sub(stamp.nanoseconds)));
    stamp.connection as usize == connection
}

/// A connection that publishes.
pub struct Publisher {
    connection: usize,
    /// Everything of a message before its content.
    head: String,
    size: usize,
    members: u64,
    pace: Pace,
    publishers: usize,
    index: usize,
    /// Open loop: when the next one is due.
    next: Instant,
    /// Closed loop: how many are under way.
    under_way: u32,
}

impl Publisher {
    /// One of the first connections is one.
    pub fn of(connection: usize, plan: &Plan) -> Option<Self> {
        let Publishers { count, pace, size } = plan.work.publishers()?;
        let head = format!(r#"{{"type":"chat","room":"{}","content":""#, plan.room(connection));
        (connection < count).then(|| Self {
            connection,
            head,
            size,
            members: plan.members(connection),
            pace,
            publishers: count,
            index: connection,
            next: Instant::now(),
            under_way: 0,
        })
    }

    /// Publishers begin spread over one period, not all at once.
    pub fn begin(&mut self, now: Instant) {
        let period = match self.pace {
            Pace::Every(period) => period,
            Pace::Window(_) => Duration::ZERO,
        };
        self.next = now + period.mul_f64(self.index as f64 / self.publishers as f64);
    }

    /// When the next message should leave; `None` while the window is full.
    pub fn due(&self) -> Option<Instant> {
        match self.pace {
            Pace::Every(_) => Some(self.next),
            Pace::Window(window) => (self.under_way < window).then_some(self.next),
        }
    }

    /// One of its own came back.
    pub fn returned(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Sends one; false when the time for sending is over.
    pub async fn publish(&mut self, socket: &mut Socket, stage: &Stage, meter: &Meter) -> Result<bool, Lost> {
        let now = stage.now();
        if stage.is_over(now) {
            return Ok(false);
        }
        let stamp = Stamp {
            nanoseconds: now,
            connection: u32::try_from(self.connection).unwrap_or(u32::MAX),
        };
        let mut text = String::with_capacity(self.head.len() + self.size + 2);
        text.push_str(&self.head);
        stamp.write(self.size, &mut text);
        text.push_str("\"}");
        if stage.measures(now) {
            meter.published(self.members);
            if matches!(self.pace, Pace::Every(_)) {
                let lag = self.next.elapsed().as_nanos();
                meter
                    .lag_nanoseconds
                    .fetch_max(u64::try_from(lag).unwrap_or(u64::MAX), Relaxed);
            }
        }
        self.under_way += 1;
        if let Pace::Every(period) = self.pace {
            self.next += period;
        }
        socket.send(Message::text(text)).await?;
        Ok(true)
    }
}
