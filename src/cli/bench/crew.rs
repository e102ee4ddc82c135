//! The client threads of a run, and the coordinator that leads them from phase to phase.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::link::{self, Lost};
use super::meter::{Meter, Total};
use super::plan::{Plan, Work};
use super::process::Process;
use super::{broadcast, echo, idle, progress, soak};
use crate::cli::Failure;

/// How often the coordinator looks.
const GLANCE: Duration = Duration::from_millis(20);
/// What the first messages do to caches and allocators is not measured.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long late deliveries are waited for at most ...
const DRAIN: Duration = Duration::from_secs(10);
/// ... and how long when none comes any more.
const DRAIN_QUIET: Duration = Duration::from_secs(2);
/// Longest wait for all connections, beyond the limit of each.
const OPEN_ALL_LIMIT: Duration = Duration::from_secs(600);

/// What every connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Open, join, then sit still.
    Open,
    /// Send, if that is your work, until the window ends.
    Run,
    /// Close.
    Stop,
}

/// What the connections of all threads share.
pub struct Stage {
    pub plan: Arc<Plan>,
    phase: watch::Sender<Phase>,
    begun: Instant,
    /// Nanoseconds since `begun`: messages sent from here on are measured ...
    from: AtomicU64,
    /// ... and none are sent from here on.
    until: AtomicU64,
    opened: AtomicUsize,
    failed: AtomicUsize,
    lost: AtomicUsize,
}

impl Stage {
    fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            phase: watch::Sender::new(Phase::Open),
            begun: Instant::now(),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
            opened: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        }
    }

    /// Nanoseconds since the run began; 584 years fit.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether messages of this time are measured.
    pub fn measures(&self, nanoseconds: u64) -> bool {
        (self.from.load(Relaxed)..self.until.load(Relaxed)).contains(&nanoseconds)
    }

    /// Whether sending is over.
    pub fn is_over(&self, nanoseconds: u64) -> bool {
        nanoseconds >= self.until.load(Relaxed)
    }

    /// The phases, as they come.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// A stretch of the run, and what both processes used in it.
pub struct Span {
    pub duration: Duration,
    /// Deliveries that came in it.
    pub received: u64,
    /// With `--pid`.
    pub server_cpu: Option<Duration>,
    pub client_cpu: Duration,
}

impl Span {
    /// In seconds, never zero.
    pub fn elapsed(&self) -> f64 {
        self.duration.as_secs_f64().max(1e-9)
    }
}

/// The losses of a run.
pub struct Totals {
    pub failed: usize,
    pub lost: usize,
    pub errors: u64,
    pub reasons: BTreeMap<String, u64>,
}

/// A point in time, with what had been used until then.
#[derive(Clone, Copy)]
pub struct Mark {
    at: Instant,
    received: u64,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
}

/// The threads of a run.
pub struct Crew {
    pub stage: Arc<Stage>,
    meters: Vec<Arc<Meter>>,
    threads: Vec<JoinHandle<()>>,
    show: bool,
}

impl Crew {
    /// Opens one connection to see that all is well, and gets the threads ready.
    pub fn gather(plan: Arc<Plan>, show: bool) -> Result<Self, Failure> {
        preflight(&plan)?;
        Ok(Self {
            stage: Arc::new(Stage::new(plan)),
            meters: Vec::new(),
            threads: Vec::new(),
            show,
        })
    }

    /// Opens every connection. Returns when all are open or have failed.
    pub fn open(&mut self) -> Result<(), Failure> {
        for index in 0..self.stage.plan.threads {
            let (stage, meter) = (self.stage.clone(), Arc::new(Meter::new()));
            self.meters.push(meter.clone());
            let builder = std::thread::Builder::new().name(format!("bench-{index}"));
            let thread = builder
                .spawn(move || work(index, &stage, &meter))
                .context("cannot start a client thread")?;
            self.threads.push(thread);
        }
        let connections = self.stage.plan.connections;
        let bar = progress::bar(connections as u64, "connecting", self.show);
        let limit = Instant::now() + OPEN_ALL_LIMIT;
        loop {
            let done = self.stage.opened.load(Relaxed) + self.stage.failed.load(Relaxed);
            bar.set_position(done as u64);
            if done >= connections || Instant::now() >= limit || self.threads.iter().all(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(GLANCE);
        }
        bar.finish_and_clear();
        if self.opened() == 0 {
            let reasons: Vec<String> = Total(&self.meters).reasons().into_keys().collect();
            return Err(Failure::other(format_args!(
                "no connection could be opened\n  {}",
                reasons.join("\n  ")
            )));
        }
        Ok(())
    }

    /// Connections that were opened.
    pub fn opened(&self) -> usize {
        self.stage.opened.load(Relaxed)
    }

    /// The counters of all threads.
    pub fn total(&self) -> Total<'_> {
        Total(&self.meters)
    }

    /// Lets connections send: a warm-up, then the measured window, whose numbers come back.
    pub fn measure(&self) -> Result<Span, Failure> {
        let seconds = self.begin();
        self.wait(WARM_UP, "warming up");
        let before = self.mark()?;
        self.wait(seconds, "measuring");
        self.since(&before)
    }

    /// Lets connections send, and says for how long after the warm-up.
    pub fn begin(&self) -> Duration {
        let seconds = Duration::from_secs(self.stage.plan.seconds.into());
        let warm = self.stage.now() + nanoseconds(WARM_UP);
        self.stage.from.store(warm, Relaxed);
        self.stage.until.store(warm + nanoseconds(seconds), Relaxed);
        self.stage.phase.send_replace(Phase::Run);
        seconds
    }

    /// Waits until everything that was sent has come, or nothing more will.
    pub fn drain(&self) {
        let (begun, total) = (Instant::now(), self.total());
        let mut latest = (begun, 0);
        while begun.elapsed() < DRAIN && latest.0.elapsed() < DRAIN_QUIET {
            let measured = total.sum(|meter| &meter.measured);
            if measured >= total.sum(|meter| &meter.expected) {
                break;
            }
            if measured > latest.1 {
                latest = (Instant::now(), measured);
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Sits still, with a bar.
    pub fn wait(&self, time: Duration, what: &'static str) {
        let bar = progress::bar(time.as_secs(), what, self.show);
        let begun = Instant::now();
        while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            bar.set_position(begun.elapsed().as_secs());
            std::thread::sleep(left.min(Duration::from_millis(250)));
        }
        bar.finish_and_clear();
    }

    /// Remembers this moment.
    pub fn mark(&self) -> Result<Mark, Failure> {
        let server_cpu = self
            .stage
            .plan
            .server
            .map(Process::cpu)
            .transpose()
            .context("the server is gone")?;
        Ok(Mark {
            at: Instant::now(),
            received: self.total().sum(|meter| &meter.received),
            server_cpu,
            client_cpu: Process::this().cpu()?,
        })
    }

    /// What happened since then.
    pub fn since(&self, before: &Mark) -> Result<Span, Failure> {
        let now = self.mark()?;
        Ok(Span {
            duration: now.at - before.at,
            received: now.received - before.received,
            server_cpu: now
                .server_cpu
                .zip(before.server_cpu)
                .map(|(now, before)| now.saturating_sub(before)),
            client_cpu: now.client_cpu.saturating_sub(before.client_cpu),
        })
    }

    /// Closes every connection, ends the threads, and says what was lost on the way.
    pub fn dismiss(mut self) -> (Totals, Vec<Arc<Meter>>) {
        // Counted before closing, for a close that was asked for is no loss.
        let lost = self.stage.lost.load(Relaxed);
        self.stage.phase.send_replace(Phase::Stop);
        for thread in self.threads.drain(..) {
            // A panic has printed itself already.
            let _ = thread.join();
        }
        let total = Total(&self.meters);
        let failed = self.stage.plan.connections - self.stage.opened.load(Relaxed);
        let totals = Totals {
            failed,
            lost,
            errors: total.sum(|meter| &meter.errors),
            reasons: total.reasons(),
        };
        (totals, self.meters)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One connection of its own, whose failure explains itself once and not ten thousand times.
fn preflight(plan: &Arc<Plan>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let opened = runtime.block_on(async {
        let token = plan.tokens.mint(plan.connections)?;
        let room = joins(plan.work).then(|| format!("{}/preflight", plan.room_prefix));
        let opened = link::open(&plan.target, &token, room.as_deref()).await;
        Ok::<_, Failure>(match opened {
            // Bad tokens are upgraded and then closed; on /echo nothing else would tell.
            Ok(mut socket) if room.is_none() => echo::probe(&mut socket).await,
            Ok(_) => Ok(()),
            Err(lost) => Err(lost),
        })
    })?;
    opened.map_err(|lost| {
        let help = lost
            .remedy()
            .map(|remedy| format!("\n  help: {remedy}"))
            .unwrap_or_default();
        Failure::other(format_args!("{}: {lost}{help}", plan.target.shown()))
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// `/echo` has no rooms.
fn joins(work: Work) -> bool {
    !matches!(work, Work::Echo { .. })
}

/// A client thread: its share of the connections, on a runtime of its own.
fn work(index: usize, stage: &Arc<Stage>, meter: &Arc<Meter>) {
    let plan = &stage.plan;
    let share = (index..plan.connections).step_by(plan.threads);
    let Ok(runtime) = runtime() else {
        stage.failed.fetch_add(share.count(), Relaxed);
        return;
    };
    runtime.block_on(async {
        let permits = Arc::new(Semaphore::new(plan.in_flight.div_ceil(plan.threads)));
        let mut connections = JoinSet::new();
        for connection in share {
            connections.spawn(live(connection, stage.clone(), meter.clone(), permits.clone()));
        }
        while connections.join_next().await.is_some() {}
    });
}

/// The life of one connection.
async fn live(connection: usize, stage: Arc<Stage>, meter: Arc<Meter>, permits: Arc<Semaphore>) {
    let phases = stage.phases();
    let opened = {
        // Closed only when the thread ends, and this task with it.
        let _permit = permits.acquire().await;
        open(connection, &stage).await
    };
    let socket = match opened {
        Ok(socket) => socket,
        Err(lost) => {
            meter.lost(&lost);
            stage.failed.fetch_add(1, Relaxed);
            return;
        }
    };
    stage.opened.fetch_add(1, Relaxed);
    let ended = match stage.plan.work {
        Work::Idle => idle::live(socket, phases).await,
        Work::Soak { .. } => soak::live(connection, socket, phases, &stage, &meter, &permits).await,
        Work::Broadcast(_) => broadcast::live(connection, socket, phases, &stage, &meter).await,
        Work::Echo { size } => echo::live(connection, size, socket, phases, &stage, &meter).await,
    };
    if let Err(lost) = ended {
        meter.lost(&lost);
        stage.lost.fetch_add(1, Relaxed);
    }
}

/// Opens this connection, in its room if there are rooms.
pub async fn open(connection: usize, stage: &Stage) -> Result<link::Socket, Lost> {
    let plan = &stage.plan;
    let token = plan
        .tokens
        .mint(connection)
        .map_err(|_| Lost::Token("the key does not sign".to_owned()))?;
    let room = joins(plan.work).then(|| plan.room(connection));
    link::open(&plan.target, &token, room.as_deref()).await
}
