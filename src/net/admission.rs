//! Who gets in, and when: what a storm of newcomers may take from those who are there already.
//!
//! Before TLS nothing is known of a client but its address, and the handshake is the dearest thing that it will ever
//! ask for. So handshakes wait in a [`Line`] per shard, which is fair between addresses, and leave it one at a time at
//! the [`Pace`] of a share of the core; what they take is measured ([`Meter`]) and not assumed. The line is as long as
//! can be served within a client's patience. Whoever comes to a full line is dropped: a retry is cheaper than a queue
//! in which everybody times out.
//!
//! After the request it is known who asks. [`Overload`] says who may stay; clients that return go first.

mod line;
mod meter;
mod overload;
mod pace;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::{Config, TlsMode};
use crate::net::limit_key;
use crate::runtime::{Rate, Tasks};
use crate::telemetry::metrics::{AdmissionRefusal, Limit, Metrics, RateLimit};

pub use self::meter::Meter;
pub use self::overload::{Load, Overload, Telling};
pub use self::pace::Pace;

use self::line::{Line, Ticket};

/// What a handshake is taken to cost before one was measured.
const COST_START_NS: u64 = 1_000_000;
/// And where there is no TLS: nothing but an accept.
const COST_PLAIN_NS: u64 = COST_MIN_NS;
/// Bounds of what is believed of a measurement.
const COST_MIN_NS: u64 = 50_000;
const COST_MAX_NS: u64 = 50_000_000;
/// However dear handshakes are, so many may begin per second and core: a slow machine is not a closed one ...
const RATE_MIN: f64 = 250.0;
/// ... as long as this share of a core bears them.
const SHARE_FOR_RATE_MIN: f64 = 0.5;
/// One measurement moves the mean by a sixteenth: a storm is noticed within a few milliseconds, an outlier is not.
const COST_WEIGHT: u64 = 16;
/// Places in line that a shard has however dear its handshakes are.
const PLACES_MIN: usize = 64;
/// How often it is asked whether the node is behind.
const LOOK: Duration = Duration::from_millis(100);

/// Which handshakes a node begins, and which requests it serves.
pub struct Admission {
    /// `limits.handshake_cpu_share`, of one core.
    share: f64,
    /// Shards that can run at the same time.
    cores: usize,
    /// `limits.handshake_wait`
    patience: Duration,
    /// CPU time of one handshake, a moving mean.
    cost_ns: AtomicU64,
    /// CPU time of all handshakes so far.
    spent_ns: AtomicU64,
    gates: Box<[Gate]>,
    /// `limits.handshakes_in_flight`
    in_flight: Arc<Semaphore>,
    /// `limits.handshakes_per_address_per_second`
    address_rate: Rate<IpAddr>,
    started: Instant,
    metrics: Arc<Metrics>,
    /// Who may stay once its request is known.
    pub overload: Overload,
}

/// One shard's entrance.
struct Gate {
    state: Mutex<GateState>,
    arrived: Notify,
}

struct GateState {
    line: Line<oneshot::Sender<Turn>>,
    pace: Pace,
}

/// The right to compute. Held for as long as the handshake is under way.
#[derive(Debug)]
pub struct Turn {
    /// What was taken from the pace in advance.
    pub cost_ns: u64,
    /// Whether somebody else was served before.
    pub has_waited: bool,
    _in_flight: OwnedSemaphorePermit,
}

impl Admission {
    /// For a node of `shards` shards.
    #[must_use]
    pub fn new(config: &Config, shards: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let limits = &config.limits;
        let share = limits.handshake_cpu_share;
        let in_flight = match limits.handshakes_in_flight {
            0 => Semaphore::MAX_PERMITS,
            max => max.min(Semaphore::MAX_PERMITS),
        };
        let gate = || Gate {
            state: Mutex::new(GateState {
                line: Line::default(),
                pace: Pace::new(share),
            }),
            arrived: Notify::new(),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Whoever is served at the very end of the handshake's time can do nothing with it.
        let patience = limits.handshake_wait.min(config.server.handshake_timeout / 2);
        Arc::new(Self {
            share,
            cores: shards.min(cores).max(1),
            patience,
            cost_ns: AtomicU64::new(match config.tls.mode {
                TlsMode::On => COST_START_NS,
                TlsMode::Off => COST_PLAIN_NS,
            }),
            spent_ns: AtomicU64::new(0),
            gates: (0..shards).map(|_| gate()).collect(),
            in_flight: Arc::new(Semaphore::new(in_flight)),
            address_rate: Rate::new(limits.handshakes_per_address_per_second),
            started: Instant::now(),
            overload: Overload::new(limits, patience, Arc::clone(&metrics)),
            metrics,
        })
    }

    /// Hands out turns on shard `index`, on the runtime of the calling thread.
    pub fn start(self: &Arc<Self>, index: usize, tasks: &Tasks) {
        let admission = Arc::clone(self);
        tasks.spawn("admission", async move { admission.hand_out(index).await });
    }

    /// Looks now and then whether the node is behind.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks, is_behind: impl Fn() -> bool + Send + 'static) {
        let admission = Arc::clone(self);
        tasks.spawn("overload", async move {
            let mut ticks = tokio::time::interval(LOOK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                admission.overload.look(is_behind());
            }
        });
    }

    /// Handshakes that this node begins per second as things are.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most cores over COST_MIN_NS"
    )]
    pub fn accepts_per_second(&self) -> u32 {
        (self.cores as f64 * self.share() * 1e9 / self.cost_ns() as f64) as u32
    }

    /// Of one core, at what handshakes cost now.
    #[expect(clippy::cast_precision_loss, reason = "at most COST_MAX_NS")]
    fn share(&self) -> f64 {
        let for_rate_min = RATE_MIN * self.cost_ns() as f64 / 1e9;
        self.share.max(for_rate_min.min(SHARE_FOR_RATE_MIN))
    }

    /// Handshakes that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.gates.iter().map(|gate| gate.state.lock().line.len()).sum()
    }

    /// CPU time of all handshakes so far.
    #[must_use]
    pub fn handshake_cpu(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    /// Waits for a turn to shake hands on shard `index`. Behind the address of a trusted proxy (`is_proxy`) are many
    /// clients: it has no rate of its own, but one lane.
    ///
    /// # Errors
    /// There is no place for this one: at once, or while it waits.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future gives the place up.
    pub async fn turn(&self, index: usize, address: IpAddr, is_proxy: bool) -> Result<Turn, AdmissionRefusal> {
        let address = limit_key(address);
        if !is_proxy && self.address_rate.check(&address).is_err() {
            self.metrics.rate_limited(RateLimit::HandshakesPerAddress);
            return Err(self.refused(AdmissionRefusal::AddressRate));
        }
        let gate = &self.gates[index];
        let (ticket, granted) = {
            let mut state = gate.state.lock();
            if state.line.is_empty()
                && state.pace.wait(self.now_ns()).is_zero()
                && let Ok(in_flight) = Arc::clone(&self.in_flight).try_acquire_owned()
            {
                return Ok(self.grant(&mut state, in_flight, false));
            }
            let (grant, granted) = oneshot::channel();
            match state.line.enter(address, grant, self.places()) {
                // Whoever is evicted learns it from the sender that is dropped here.
                Ok((ticket, _evicted)) => (ticket, granted),
                Err(_) => {
                    self.metrics.limit_hit(match self.in_flight.available_permits() {
                        0 => Limit::HandshakesInFlight,
                        _ => Limit::HandshakeWait,
                    });
                    return Err(self.refused(AdmissionRefusal::LineFull));
                }
            }
        };
        gate.arrived.notify_one();
        let _place = Place { gate, ticket };
        granted.await.map_err(|_| self.refused(AdmissionRefusal::AddressShare))
    }

    /// Runs `handshake` on shard `index`, and charges what it takes there; `meter` keeps count of this one.
    ///
    /// # Cancel safety
    /// As `handshake`.
    pub async fn measure<F: Future>(&self, meter: &Meter, index: usize, handshake: F) -> F::Output {
        meter.measure(self, index, handshake).await
    }

    /// When a client that is turned away now should return.
    pub fn return_after(&self) -> Duration {
        self.overload.return_after(self.accepts_per_second())
    }

    /// A handshake was completed and took this much CPU time.
    pub fn learn(&self, spent_ns: u64) {
        let spent_ns = spent_ns.clamp(COST_MIN_NS, COST_MAX_NS);
        let mean_ns = self.cost_ns();
        // Two at once may lose one of the two: it is a mean of many.
        self.cost_ns
            .store((mean_ns * (COST_WEIGHT - 1) + spent_ns) / COST_WEIGHT, Relaxed);
    }

    /// Forgets addresses that have not been seen for a while.
    pub fn sweep(&self) {
        self.address_rate.sweep();
    }

    /// Takes what was spent on shard `index` from its pace, but for what was taken in advance.
    fn charge(&self, index: usize, taken_ns: u64, advance_ns: u64) {
        self.spent_ns.fetch_add(taken_ns, Relaxed);
        let signed = |ns| i64::try_from(ns).unwrap_or(i64::MAX);
        let mut state = self.gates[index].state.lock();
        state.pace.spend(signed(taken_ns) - signed(advance_ns), self.now_ns());
        state.pace.set_share(self.share());
    }

    async fn hand_out(&self, index: usize) {
        let gate = &self.gates[index];
        loop {
            gate.arrived.notified().await;
            while !gate.state.lock().line.is_empty() {
                let wait = gate.state.lock().pace.wait(self.now_ns());
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                let Ok(in_flight) = Arc::clone(&self.in_flight).acquire_owned().await else {
                    return;
                };
                self.serve_next(gate, in_flight);
                // One handshake, and then whatever else this thread has to do, the flusher first of all.
                tokio::task::yield_now().await;
            }
        }
    }

    fn serve_next(&self, gate: &Gate, in_flight: OwnedSemaphorePermit) {
        let mut state = gate.state.lock();
        if let Some(grant) = state.line.next() {
            let turn = self.grant(&mut state, in_flight, true);
            if let Err(turn) = grant.send(turn) {
                // Of one who has just gone nothing is computed.
                let advance_ns = i64::try_from(turn.cost_ns).unwrap_or(i64::MAX);
                state.pace.spend(-advance_ns, self.now_ns());
            }
        }
    }

    fn grant(&self, state: &mut GateState, in_flight: OwnedSemaphorePermit, has_waited: bool) -> Turn {
        let cost_ns = self.cost_ns();
        state
            .pace
            .spend(i64::try_from(cost_ns).unwrap_or(i64::MAX), self.now_ns());
        Turn {
            cost_ns,
            has_waited,
            _in_flight: in_flight,
        }
    }

    fn refused(&self, refusal: AdmissionRefusal) -> AdmissionRefusal {
        self.metrics.admission_refused(refusal);
        refusal
    }

    /// How many may wait on one shard.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of thousands and a wait of seconds"
    )]
    fn places(&self) -> usize {
        let per_second = f64::from(self.accepts_per_second());
        let of_all = (per_second * self.patience.as_secs_f64()) as usize;
        (of_all / self.gates.len().max(1)).max(PLACES_MIN)
    }

    fn cost_ns(&self) -> u64 {
        self.cost_ns.load(Relaxed)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A place in line, which is given up with the future that waits in it.
struct Place<'a> {
    gate: &'a Gate,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.gate.state.lock().line.leave(self.ticket));
    }
}
