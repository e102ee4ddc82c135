use super::*;
use crate::auth::Identity;
use crate::auth::revocations::Hit;
use crate::backplane::contract::{Entry, PresenceEvent, Scope, Sink, Subject};
use crate::backplane::memory::Memory;
use crate::backplane::memory::faulty::{Faulty, Rates};
use crate::config::default_config;
use crate::telemetry::metrics::BuildInfo;

/// Every call is refused.
const AWAY: Rates = Rates {
    refused: 1_000,
    dropped: 0,
    doubled: 0,
    held: 0,
    unanswered: 0,
};

/// What one node has of all this, and an inbox in the place of its shard.
struct Bench {
    warden: Arc<Warden>,
    inbox: Arc<Inbox>,
    engine: Option<Arc<Faulty>>,
    tasks: Tasks,
}

/// A node's ear that is deaf but for control.
struct Ear(Arc<Warden>);

impl Sink for Ear {
    fn message(&self, _: &str, _: Entry) {}

    fn presence(&self, _: &str, _: PresenceEvent) {}

    fn control(&self, control: Control) {
        self.0.hear(News::Told(control, now_ms()));
    }

    fn control_suspect(&self) {
        self.0.hear(News::Suspect);
    }

    fn suspect(&self, _: Scope<'_>) {}

    fn up(&self, _: bool) {}

    fn unready(&self, _: bool) {}
}

impl Bench {
    fn new(memory: Option<&Arc<Memory>>, on_stale: OnStale) -> Self {
        let mut config = default_config().backplane;
        config.on_stale = on_stale;
        let engine = memory.map(|memory| Faulty::new(memory.node(), 1, Rates::default()));
        let inbox = Arc::<Inbox>::default();
        let metrics = Metrics::install(BuildInfo {
            version: "",
            revision: "",
            rustc: "",
            backplane: "memory",
        });
        let warden = Warden::new(
            &config,
            engine.clone().map(|engine| engine as Arc<dyn Backplane>),
            Arc::default(),
            [Arc::clone(&inbox)].into(),
            metrics,
        );
        Self {
            warden,
            inbox,
            engine,
            tasks: Tasks::default(),
        }
    }

    /// As a node begins.
    async fn start(self) -> Self {
        self.warden.start(&self.tasks);
        if let Some(engine) = &self.engine {
            let ear = Arc::new(Ear(Arc::clone(&self.warden)));
            let started = Arc::clone(engine) as Arc<dyn Backplane>;
            started.start(ear, &self.tasks).await.unwrap();
            self.warden.load().await;
        }
        self
    }

    fn hit(&self, user: &str, issued_at: u64) -> Option<Hit> {
        let identity = Identity {
            user_id: user.into(),
            user_json: "{}".into(),
            grants: None,
            token_id: None,
            issued_at: Some(issued_at).into(),
            is_probe: false,
            amendment: None,
        };
        self.warden.revoked.read().judge(&identity, None, auth::now())
    }

    /// Waits for the next look over all connections, and is done with it at once.
    async fn looked_over(&self) {
        let mut commands = Vec::new();
        while !commands
            .iter()
            .any(|command| matches!(command, Command::End { from: 0, .. }))
        {
            commands.clear();
            self.inbox.filled().await;
            self.inbox.take(&mut commands);
        }
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let so = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        (tokio::time::timeout(Duration::from_secs(60), so).await).expect("it becomes so within a minute");
    }

    /// A metric's value.
    fn metric(&self, name: &str) -> f64 {
        let text = self.warden.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.stop_services();
    }
}

fn revoke(user: &str) -> Control {
    Control::Revoke(Revocation {
        subject: Subject::User(user.into()),
        issued_before: auth::now(),
        forget_after: auth::now() + 3_600,
    })
}

fn kick(user: &str) -> Control {
    Control::Kick {
        subject: Subject::User(user.into()),
        time_ms: now_ms(),
    }
}

fn memory() -> Arc<Memory> {
    Memory::new(&default_config())
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_carries_out_what_it_is_told() {
    let bench = Bench::new(None, OnStale::Refuse).start().await;
    assert!(!bench.warden.turns_away());
    bench.warden.tell(revoke("ann")).await.unwrap();
    assert_eq!(bench.hit("ann", auth::now()), Some(Hit::User));
    assert_eq!(bench.hit("ann", auth::now() + 10), None);
    bench.looked_over().await;
    bench.warden.tell(kick("bob")).await.unwrap();
    assert_eq!(bench.hit("bob", 0), None, "a kick is no ban");
    bench.looked_over().await;
    bench
        .until(|bench| bench.metric("conclave_revocation_effect_seconds_count") == 2.0)
        .await;
    assert_eq!(bench.metric("conclave_kicks_total"), 1.0);
    assert_eq!(bench.metric("conclave_revocation_entries"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_new_ends_nobody_again() {
    let bench = Bench::new(None, OnStale::Refuse);
    let (revoke, kick) = (revoke("ann"), kick("bob"));
    for told in [&revoke, &kick, &revoke, &kick] {
        bench.warden.tell(told.clone()).await.unwrap();
        if told == &kick {
            let batch = bench.warden.pending.lock().take();
            bench
                .until(|_| batch.is_some() || bench.metric("conclave_kicks_total") == 1.0)
                .await;
        }
    }
    assert!(bench.warden.pending.lock().take().is_none());
    assert_eq!(bench.metric("conclave_kicks_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn every_node_hears_and_a_new_one_reads() {
    let memory = memory();
    let here = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    let there = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    here.warden.tell(revoke("ann")).await.unwrap();
    for bench in [&here, &there] {
        assert_eq!(bench.hit("ann", 1), Some(Hit::User));
        bench.looked_over().await;
    }
    let later = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    assert_eq!(later.hit("ann", 1), Some(Hit::User));
}

#[tokio::test(start_paused = true)]
async fn what_a_failover_lost_comes_back_while_one_node_lives() {
    let memory = memory();
    let empty = memory.snapshot();
    let here = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    let there = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    here.warden.tell(revoke("ann")).await.unwrap();
    drop(there);
    memory.rewind(&empty, crate::backplane::memory::rewind::Epoch::New);
    assert_eq!(memory.node().revocations().await.unwrap(), []);
    here.engine.as_ref().unwrap().suspect();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while memory.node().revocations().await.unwrap().is_empty() {
        pace.tick().await;
    }
    // And without any suspicion, by the next reading.
    memory.rewind(&empty, crate::backplane::memory::rewind::Epoch::Same);
    while memory.node().revocations().await.unwrap().is_empty() {
        pace.tick().await;
    }
    let later = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    assert_eq!(later.hit("ann", 1), Some(Hit::User));
}

#[tokio::test(start_paused = true)]
async fn who_knows_too_little_turns_away_or_not_as_configured() {
    let memory = memory();
    for (on_stale, turns_away) in [(OnStale::Refuse, true), (OnStale::Pass, false)] {
        let bench = Bench::new(Some(&memory), on_stale);
        let engine = Arc::clone(bench.engine.as_ref().unwrap());
        engine.set(AWAY);
        let bench = bench.start().await;
        assert_eq!(bench.warden.turns_away(), turns_away, "nothing was ever read");
        engine.set(Rates::default());
        bench
            .until(|bench| !bench.warden.turns_away() && bench.warden.fresh.lock().is_some())
            .await;
        engine.set(AWAY);
        let since = Instant::now();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!bench.warden.turns_away(), "for a while it knows enough");
        bench.until(|bench| bench.warden.is_stale()).await;
        assert!(since.elapsed() <= Duration::from_secs(61), "{:?}", since.elapsed());
        assert_eq!(bench.warden.turns_away(), turns_away);
        bench
            .until(|bench| bench.metric("conclave_revocation_staleness_seconds") > 60.0)
            .await;
        engine.set(Rates::default());
        bench.until(|bench| !bench.warden.is_stale()).await;
        bench
            .until(|bench| bench.metric("conclave_revocation_staleness_seconds") < 60.0)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_changes_nothing_that_is_known() {
    let memory = memory();
    let bench = Bench::new(Some(&memory), OnStale::Refuse).start().await;
    bench.engine.as_ref().unwrap().set(Rates {
        unanswered: 1_000,
        ..Rates::default()
    });
    assert_eq!(bench.warden.tell(revoke("ann")).await, Err(Failed::Unknown));
    // It was told nevertheless.
    assert_eq!(bench.hit("ann", 1), Some(Hit::User));
    bench.looked_over().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_be_forgotten_goes_by_itself() {
    let bench = Bench::new(None, OnStale::Refuse).start().await;
    bench
        .warden
        .revoked
        .write()
        .add(
            &Revocation {
                subject: Subject::User("ann".into()),
                issued_before: 1,
                forget_after: 2,
            },
            1,
        )
        .unwrap();
    bench.until(|bench| bench.warden.revoked.read().is_empty()).await;
    bench
        .until(|bench| bench.metric("conclave_revocation_entries") == 0.0)
        .await;
}

/// Kicks are not kept: a node that served before it follows the log would miss those of its first moments.
#[tokio::test(start_paused = true)]
async fn a_node_begins_only_once_it_follows_the_log() {
    let bench = Bench::new(Some(&memory()), OnStale::Refuse);
    let mut load = std::pin::pin!(bench.warden.load());
    assert!(futures_util::poll!(&mut load).is_pending());
    bench.warden.hear(News::Up);
    assert!(futures_util::poll!(&mut load).is_pending(), "it can be asked, no more");
    bench.warden.hear(News::Suspect);
    // The engine of this bench was not started, so the reading may fail; only the wait counts.
    load.await;
}
