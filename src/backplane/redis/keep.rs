//! Keeps the links of a shard: makes them, watches them, makes them anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Pipeline, PushKind, Value, cmd};
use tokio::time::MissedTickBehavior;

use super::super::contract::{Failed, RoomKey, Scope};
use super::Redis;
use super::backoff::Backoff;
use super::error::{Said, judge};
use super::info::Info;
use super::kept::Publisher;
use super::keys::CANARY;
use super::link::Link;
use super::problem::Problem;
use super::push::Pushes;
use super::reply::{array, integer};
use super::settings::{Host, Kept};
use super::shard::{Reason, Shard};
use super::subscriptions::{LinkId, Step};
use crate::telemetry::metrics::Link as LinkKind;

/// Subscriptions asked for at once: their confirmations must come within the call timeout.
const STEPS_MAX: usize = 500;

/// Links that have held for so long are no reason to wait before they are made anew.
const PROVEN: Duration = Duration::from_secs(5);

/// The links of one shard, while they are good.
pub(super) struct Links {
    pub(super) command: Arc<Link>,
    pub(super) subscriber: Arc<Link>,
    pub(super) publisher: Option<Arc<Link>>,
    pub(super) pushes: Arc<Pushes>,
    pub(super) id: LinkId,
    /// Hidden room for the canary; none where the shard holds no partition.
    pub(super) canary: Option<RoomKey>,
}

impl Redis {
    /// Keeps the links of a shard until it is retired. Cancel safe.
    pub(super) async fn keep(self: Arc<Self>, shard: Arc<Shard>) {
        let retired = shard.retired.clone();
        // Dropped with the shard's links: what waits for their answers hears that it is unknown.
        let _retired = retired.run_until_cancelled(Box::pin(self.keep_links(&shard))).await;
        shard.take_down(Reason::Closed);
        shard.canary.failed(&self.started().readiness);
        self.tell_up();
    }

    async fn keep_links(&self, shard: &Arc<Shard>) {
        let (mut backoff, mut reason) = (Backoff::default(), Reason::Start);
        let mut told = String::new();
        loop {
            shard.trust();
            let made = tokio::select! {
                biased;
                // Sentinel names another master: whoever is being waited for is no longer of interest.
                doubt = shard.doubted() => {
                    shard.take_down(doubt);
                    continue;
                }
                made = self.make_links(shard) => made,
            };
            match made {
                Ok(links) => {
                    told.clear();
                    tracing::info!(server = %links.command.host, "redis: connected");
                    self.count_links(reason);
                    self.note_first(None);
                    let since = Instant::now();
                    reason = self.watch(shard, &links).await;
                    tracing::warn!(server = %links.command.host, reason = reason_word(reason), "redis: connecting anew");
                    shard.take_down(reason);
                    links.subscriber.close();
                    if since.elapsed() > PROVEN {
                        backoff.reset();
                    }
                }
                Err(problem) => {
                    shard.take_down(Reason::Closed);
                    self.note_first(Some(&problem));
                    let text = problem.to_string();
                    // Once per kind of trouble, not per try.
                    if text == told {
                        tracing::debug!(problem = text, "redis: still away");
                    } else if let Problem::Unfit(..) = problem {
                        tracing::error!(problem = text, "redis: cannot be used");
                    } else {
                        tracing::warn!(problem = text, "redis: away");
                    }
                    told = text;
                }
            }
            self.tell_up();
            self.refresh.notify_one();
            // Nothing is lost: whoever doubts what is not there has been heard.
            let _doubt = tokio::time::timeout(backoff.next(), shard.doubted()).await;
        }
    }

    async fn make_links(&self, shard: &Arc<Shard>) -> Result<Links, Problem> {
        let started = self.started();
        let host = match &shard.host {
            Some(host) => host.clone(),
            None => self.ask_sentinels().await?,
        };
        let pushes = Pushes::new(
            self.keys.clone(),
            Arc::clone(&started.sink),
            Arc::clone(&started.readiness),
            shard,
            self.telemetry.clone(),
        );
        let (command, subscriber, publisher) = tokio::try_join!(
            started.dialer.dial(&host, None::<Arc<Pushes>>),
            started.dialer.dial(&host, Some(Arc::clone(&pushes))),
            self.dial_publisher(&host),
        )?;
        let failed = |why| Problem::Failed(host.clone(), why);
        let info = Info::ask(&command, &[]).await.map_err(failed)?;
        let other = Info::ask(&subscriber, &["replication"]).await.map_err(failed)?;
        self.check_mode(shard, &host, &info)?;
        if !info.server().is_master {
            return Err(Problem::NotMaster(host));
        }
        if info.server().replid != other.server().replid {
            return Err(Problem::TwoServers(host));
        }
        let canary = self.canary_room(shard);
        self.check(&command, &info, canary.as_ref(), shard).await?;
        learn_time(shard, &command).await.map_err(failed)?;
        let links = Links {
            command,
            subscriber,
            publisher,
            pushes,
            id: self.next_link.fetch_add(1, Ordering::Relaxed) + 1,
            canary,
        };
        self.take_up(shard, &links, &host).await?;
        Ok(links)
    }

    async fn dial_publisher(&self, host: &Host) -> Result<Option<Arc<Link>>, super::dial::Unreachable> {
        match self.settings.kept {
            Kept::Replica(_) => self.started().dialer.dial(host, None::<Arc<Pushes>>).await.map(Some),
            Kept::Async | Kept::Disk => Ok(None),
        }
    }

    /// Subscribes to all that is wanted, and only then lets the links serve.
    async fn take_up(&self, shard: &Arc<Shard>, links: &Links, host: &Host) -> Result<(), Problem> {
        let started = self.started();
        shard.set_subscriber(links.id);
        shard.queue.clear();
        let partitions = self.map.load().partitions_of(shard);
        for room in self.subscriptions.begin(&partitions) {
            shard.queue.push(room);
        }
        let moved = |_| Problem::Moved(host.clone());
        if let Some(room) = links.canary.clone() {
            let subscribe = [Step { room, subscribe: true }];
            let confirmed = self.ask_steps(links, &subscribe).await.map_err(moved)?;
            if let Some(Err(why)) = confirmed.first() {
                return Err(self.no_channels(host, *why));
            }
        }
        while !shard.queue.is_empty() {
            self.work_off(shard, links).await.map_err(moved)?;
        }
        shard.canary.begin(&started.me);
        let publisher = links.publisher.as_ref().and_then(|link| {
            let Kept::Replica(wait) = self.settings.kept else {
                return None;
            };
            let (publisher, run) = Publisher::new(
                Arc::clone(link),
                wait,
                self.settings.call_timeout,
                self.telemetry.clone(),
            );
            started.tasks.spawn("redis publisher", run);
            Some(publisher)
        });
        shard.set_links(Arc::clone(&links.command), publisher);
        if self.is_cluster() {
            started.sink.suspect(Scope::Partitions(&partitions));
        } else {
            started.sink.suspect(Scope::All);
        }
        self.tell_up();
        Ok(())
    }

    /// Until something is wrong with them; says what. Cancel safe.
    async fn watch(&self, shard: &Arc<Shard>, links: &Links) -> Reason {
        let mut beat = tokio::time::interval(shard.canary.interval());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let publisher_closed = async {
            match &links.publisher {
                Some(link) => link.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(publisher_closed);
        loop {
            let trouble = tokio::select! {
                biased;
                reason = shard.doubted() => Err(reason),
                () = links.pushes.unasked() => Err(Reason::Unsubscribed),
                () = links.subscriber.closed() => Err(Reason::Closed),
                () = links.command.closed() => Err(Reason::Closed),
                () = &mut publisher_closed => Err(Reason::Closed),
                () = shard.queue.more() => self.catch_up(shard, links).await,
                _ = beat.tick() => self.beat(shard, links).await,
            };
            if let Err(reason) = trouble {
                return reason;
            }
            if beat.period() != shard.canary.interval() {
                beat = tokio::time::interval(shard.canary.interval());
                beat.reset();
            }
        }
    }

    async fn catch_up(&self, shard: &Arc<Shard>, links: &Links) -> Result<(), Reason> {
        while !shard.queue.is_empty() {
            self.work_off(shard, links).await?;
        }
        if let Some(moved) = shard.take_moved() {
            self.started().sink.suspect(Scope::Partitions(&moved));
        }
        Ok(())
    }

    /// One batch of the queue.
    async fn work_off(&self, shard: &Arc<Shard>, links: &Links) -> Result<(), Reason> {
        let steps = self.subscriptions.steps(&shard.queue, links.id, STEPS_MAX);
        if steps.is_empty() {
            return Ok(());
        }
        let results = self.ask_steps(links, &steps).await;
        let results = results.inspect_err(|_| self.subscriptions.lost(&steps, links.id))?;
        for (step, result) in steps.iter().zip(results) {
            self.subscriptions.done(step, links.id, result, &shard.queue);
        }
        Ok(())
    }

    async fn ask_steps(&self, links: &Links, steps: &[Step]) -> Result<Vec<Result<(), Failed>>, Reason> {
        links.pushes.expect(steps);
        let mut pipeline = Pipeline::with_capacity(steps.len());
        for step in steps {
            let mut command = cmd(if step.subscribe { "SSUBSCRIBE" } else { "SUNSUBSCRIBE" });
            command.arg(self.keys.channel(&step.room));
            pipeline.add_command(command);
        }
        let answers = links
            .subscriber
            .send_all(&pipeline)
            .await
            .map_err(|_| Reason::Timeout)?;
        let results = steps
            .iter()
            .zip(answers)
            .map(|(step, answer)| self.confirmation(step, answer));
        let results = results.collect::<Result<_, _>>()?;
        if links.pushes.was_unasked() {
            Err(Reason::Unsubscribed)
        } else {
            Ok(results)
        }
    }

    /// An answer to another question means that the link is out of step.
    fn confirmation(&self, step: &Step, answer: Value) -> Result<Result<(), Failed>, Reason> {
        match judge(answer) {
            Ok(Value::Push { kind, data }) => {
                let wanted = if step.subscribe {
                    PushKind::SSubscribe
                } else {
                    PushKind::SUnsubscribe
                };
                let channel =
                    matches!(data.first(), Some(Value::BulkString(it)) if *it == self.keys.channel(&step.room));
                if kind == wanted && channel {
                    Ok(Ok(()))
                } else {
                    Err(Reason::Unsubscribed)
                }
            }
            Ok(_) => Err(Reason::Unsubscribed),
            Err(Said::Moved(_) | Said::Ask(_)) => Err(Reason::Moved),
            Err(said) => Ok(Err(said.into())),
        }
    }

    fn canary_room(&self, shard: &Arc<Shard>) -> Option<RoomKey> {
        let partition = self.map.load().partitions_of(shard).first()?;
        Some(RoomKey {
            name: CANARY.into(),
            partition,
        })
    }

    fn count_links(&self, reason: Reason) {
        for kind in self.link_kinds() {
            self.telemetry.link_rebuilt(*kind, reason);
        }
    }

    /// Links that every shard has.
    pub(super) fn link_kinds(&self) -> &'static [LinkKind] {
        if self.is_replicated() {
            &[LinkKind::Command, LinkKind::Subscriber, LinkKind::Publish]
        } else {
            &[LinkKind::Command, LinkKind::Subscriber]
        }
    }
}

fn reason_word(reason: Reason) -> &'static str {
    use crate::telemetry::metrics::Label as _;
    reason.word()
}

/// `TIME`: deadlines of publishes need it from the first one on.
async fn learn_time(shard: &Shard, command: &Link) -> Result<(), Failed> {
    let asked = Instant::now();
    let mut time = array(judge(command.send(&cmd("TIME")).await?)?)?;
    let (seconds, micros) = (integer(time.next())?, integer(time.next())?);
    shard.clock.forget();
    shard
        .clock
        .learn(seconds * 1_000 + micros / 1_000, asked, Instant::now());
    Ok(())
}
