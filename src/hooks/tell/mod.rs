//! Telling: what happened is posted to the application in batches, at least once, in order per room.
//!
//! With an engine that keeps outboxes, the scripts that make events true write them, and `overseer` finds what waits, for
//! rooms of nodes that died too; else `queue` keeps it in the memory of this process. Either way `lane` posts one `batch`
//! after the other, and `pace` says when a backend that fails is tried again. `sessions` brings `open` and `close` to the
//! outboxes.

mod batch;
mod lane;
mod overseer;
mod pace;
pub mod queue;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Identity;
use crate::backplane::contract::Backplane;
use crate::backplane::driver::Driver;
use crate::backplane::outbox::record::{Record, What};
use crate::backplane::outbox::{self, Event, HOOKS_MAX, Outboxes};
use crate::backplane::partition;
use crate::config::Config;
use crate::connection::Session;
use crate::hooks::endpoint::{Endpoint, Settings};
use crate::hooks::event::fresh_id;
use crate::hooks::sign::Signer;
use crate::outbound::Outbound;
use crate::runtime::{Tasks, now_ms};
use crate::telemetry::metrics::Metrics;
use lane::{Hook, Source};
use overseer::Overseer;
use pace::Pace;
use queue::Queues;
pub use sessions::End;
use sessions::Sessions;

/// Requests of one hook that may be under way: rooms are spread over so many lanes, each told in order.
const LANES: usize = 16;

/// Longest answer of a backend that is told something; nobody reads it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How often the gauges are set.
const MEASURE: Duration = Duration::from_secs(1);

/// How often a queue is looked at that is to be told before the node ends.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// The hooks of a node that are told of things.
pub struct Teller {
    outboxes: Arc<Outboxes>,
    hooks: Vec<Arc<Hook>>,
    keeping: Keeping,
}

/// Where what is to be told is kept.
enum Keeping {
    Here(Arc<Queues>),
    /// By the engine; and who brings it sessions, if a hook wants them.
    Engine(Arc<dyn Backplane>, Option<Arc<Sessions>>),
}

impl Teller {
    /// None if no hook is told of anything. An engine that keeps outboxes does so from now on.
    ///
    /// # Errors
    /// A secret, a URL or a CA file that cannot be used.
    pub fn new(
        config: &Config,
        backplane: Option<&Arc<dyn Backplane>>,
        outbound: &Outbound,
        metrics: &Metrics,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if config.hooks.tell.is_empty() {
            return Ok(None);
        }
        anyhow::ensure!(
            config.hooks.tell.len() <= HOOKS_MAX,
            "at most {HOOKS_MAX} [[hooks.tell]] are possible: let some of them share a URL"
        );
        let signer = Signer::new(&config.hooks).map_err(|what| anyhow::anyhow!("hooks.secret_file: {what}"))?;
        let signer = Arc::new(signer);
        let outboxes = Arc::new(outboxes(config));
        let hooks = (config.hooks.tell.iter().enumerate())
            .map(|(at, hook)| {
                let settings = Settings {
                    name: &hook.name,
                    url: &hook.url,
                    ca_file: config.hooks.ca_file.as_deref(),
                    timeout: hook.timeout,
                    in_flight: LANES,
                    // Its pace leaves it alone.
                    circuit: (0, Duration::ZERO),
                    answer_bytes: ANSWER_BYTES_MAX,
                };
                Ok(Arc::new(Hook {
                    at,
                    endpoint: Endpoint::new(&settings, Arc::clone(&signer), outbound, metrics)?,
                    pace: Pace::new(hook.retry_max),
                    batch_events: hook.batch_events,
                    batch_wait: hook.batch_wait,
                    timeout: hook.timeout,
                    metrics: Arc::new(metrics.tell_hook(&hook.name)),
                    oldest_ms: Default::default(),
                }))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let keeping = match backplane.filter(|backplane| backplane.capabilities().outbox) {
            Some(backplane) => {
                backplane.keep_outboxes(Arc::clone(&outboxes));
                Keeping::Engine(Arc::clone(backplane), Sessions::new(&outboxes))
            }
            None => {
                let metrics: Vec<_> = hooks.iter().map(|hook| Arc::clone(&hook.metrics)).collect();
                Keeping::Here(Arc::new(Queues::new(Arc::clone(&outboxes), &metrics)))
            }
        };
        Ok(Some(Arc::new(Self {
            outboxes,
            hooks,
            keeping,
        })))
    }

    /// Where rooms put down what happens in them, if the engine does not.
    #[must_use]
    pub fn queues(&self) -> Option<&Arc<Queues>> {
        match &self.keeping {
            Keeping::Here(queues) => Some(queues),
            Keeping::Engine(..) => None,
        }
    }

    /// Spawns the services. `driver` is there whenever an engine is.
    pub fn start(self: &Arc<Self>, tasks: &Tasks, driver: Option<&Driver>) {
        let source = match (&self.keeping, driver) {
            (Keeping::Here(queues), _) => Source::Queues(Arc::clone(queues)),
            (Keeping::Engine(backplane, sessions), Some(driver)) => {
                if let Some(sessions) = sessions {
                    let run = Arc::clone(sessions).run(Arc::clone(backplane), driver.living());
                    tasks.spawn("hook sessions", run);
                }
                if self.outboxes.hooks.iter().any(outbox::Hook::hears_joins_and_chats) {
                    driver.let_joins_go_first(Arc::clone(&self.outboxes));
                }
                let overseer = Overseer::new(Arc::clone(backplane), Arc::clone(&self.outboxes), driver.living());
                tasks.spawn("hook outboxes", Arc::clone(&overseer).run());
                Source::Outboxes(overseer)
            }
            (Keeping::Engine(..), None) => return,
        };
        for hook in &self.hooks {
            for lane in 0..LANES {
                tasks.spawn("hook lane", Arc::clone(hook).run(lane, source.clone()));
            }
        }
        tasks.spawn("hook gauges", measure(Arc::clone(self), source));
    }

    /// A client is here.
    pub fn opened(&self, session: Session, identity: &Identity) {
        match &self.keeping {
            Keeping::Engine(_, Some(sessions)) => {
                let (user, json) = (&identity.user_id, &identity.user_json);
                session.with_name(|name| sessions.opened(name, user, json));
            }
            Keeping::Engine(_, None) => {}
            Keeping::Here(queues) => self.queue_session(queues, Event::Open, session, identity, ""),
        }
    }

    /// It is gone.
    pub fn closed(&self, session: Session, identity: &Identity, end: &End<'_>) {
        match &self.keeping {
            Keeping::Engine(_, Some(sessions)) => session.with_name(|name| sessions.closed(name, end)),
            Keeping::Engine(_, None) => {}
            Keeping::Here(queues) => {
                let more =
                    sessions::ended(end.code, end.reason) + &format!(r#","duration_ms":{}"#, end.duration.as_millis());
                self.queue_session(queues, Event::Close, session, identity, &more);
            }
        }
    }

    fn queue_session(&self, queues: &Queues, event: Event, session: Session, identity: &Identity, more: &str) {
        let hooks = self.outboxes.wanting(event, "");
        if hooks.is_empty() {
            return;
        }
        let members =
            session.with_name(|name| sessions::members(event, &self.outboxes.node, &identity.user_json, name) + more);
        let id = fresh_id();
        let record = Record {
            id: &id,
            time_ms: now_ms(),
            what: What::Session { members: &members },
        };
        queues.push(hooks, partition::of(&identity.user_id), &record);
    }

    /// Waits until this process keeps nothing that is still to be told; for how long is the caller's business.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flushed(&self) {
        match &self.keeping {
            Keeping::Engine(_, Some(sessions)) => sessions.written().await,
            Keeping::Engine(_, None) => {}
            Keeping::Here(queues) => {
                while self.hooks.iter().any(|hook| queues.backlog(hook.at).events > 0) {
                    tokio::time::sleep(FLUSH_LOOK).await;
                }
            }
        }
    }

    /// Events that end with this process.
    #[must_use]
    pub fn kept_here(&self) -> u64 {
        match &self.keeping {
            Keeping::Engine(..) => 0,
            Keeping::Here(queues) => self.hooks.iter().map(|hook| queues.backlog(hook.at).events).sum(),
        }
    }
}

fn outboxes(config: &Config) -> Outboxes {
    let hooks = config.hooks.tell.iter().map(|hook| {
        let events: Vec<_> = Event::ALL
            .into_iter()
            .filter(|event| hook.events.iter().any(|word| word == event.as_str()))
            .collect();
        outbox::Hook::new(&hook.name, &events, &hook.rooms, hook.queue_events, hook.queue_bytes)
    });
    Outboxes::new(&config.server.name, hooks.collect())
}

/// Sets the gauges, until it is dropped.
async fn measure(teller: Arc<Teller>, source: Source) {
    let mut ticks = tokio::time::interval(MEASURE);
    loop {
        ticks.tick().await;
        for hook in &teller.hooks {
            hook.measure(source.backlog(hook.at));
        }
    }
}
