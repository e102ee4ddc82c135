//! From one link to the next. A link is used once everything that is told over it is heard, and left at the first sign
//! that it is broken.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot};

use crate::backplane::contract::{Scope, Sink};
use crate::runtime::Tasks;
use crate::telemetry::metrics::{Link as LinkKind, Reason};

use super::Nats;
use super::feed::{self, Feed};
use super::layout::{self, Streams, Unfit};
use super::link::Link;
use super::names::STREAMS;
use super::problem::Problem;

/// Between attempts to connect, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Attempts that fail alike are told so often.
const TELL_EVERY: u32 = 30;

/// All rooms are compared at most so often.
const DROPS_INTERVAL: Duration = Duration::from_secs(1);

/// What came of the first attempt.
type First = Result<(), anyhow::Error>;

impl Nats {
    pub(super) async fn begin(self: Arc<Self>, sink: Arc<dyn Sink>, tasks: &Tasks) -> anyhow::Result<()> {
        if self.sink.set(sink).is_err() {
            return Err(anyhow!("the backplane was started twice"));
        }
        let (tell, told) = oneshot::channel();
        let patience = self.settings.connect_timeout;
        let hosts = self.settings.url.hosts_shown();
        tasks.spawn("nats", async move { self.keep_linked(tell).await });
        match tokio::time::timeout(patience, told).await {
            Ok(Ok(first)) => first.with_context(|| format!("NATS at {hosts}")),
            _ => {
                tracing::warn!(hosts, "NATS is away: the node starts, and goes on trying");
                Ok(())
            }
        }
    }

    /// Never returns.
    async fn keep_linked(&self, first: oneshot::Sender<First>) {
        let mut first = Some(first);
        let mut failures = 0_u32;
        let mut pause = PAUSE_MIN;
        loop {
            match self.prepare().await {
                Ok((link, fed, streams)) => {
                    (failures, pause) = (0, PAUSE_MIN);
                    let reason = self.serve(&Arc::new(link), fed, &streams, &mut first).await;
                    self.left(reason);
                }
                Err(unfit) => {
                    let (Unfit::Yet(why) | Unfit::Ever(why)) = &unfit;
                    if failures.is_multiple_of(TELL_EVERY) {
                        tracing::warn!("NATS cannot be used: {why:#}");
                    }
                    failures += 1;
                    self.tell_sink(|sink| sink.up(false));
                    if let Unfit::Ever(why) = unfit {
                        // Nobody may listen any more: then a person reads the log.
                        first.take().map(|first| first.send(Err(why)));
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// A connection, streams as they should be, and a lineage that this server may go on with.
    async fn prepare(&self) -> Result<(Link, mpsc::Receiver<Feed>, Streams), Unfit> {
        let connected = Link::connect(&self.settings).await;
        let (link, fed) =
            connected.map_err(|error| Unfit::Yet(anyhow!("{}: {error}", self.settings.url.hosts_shown())))?;
        let fit = self.fit(&link).await;
        let complaint = link.said.complaint();
        let streams = fit.map_err(|unfit| match (unfit, complaint) {
            (Unfit::Yet(why), Some(said)) => Unfit::Yet(why.context(format!(
                "the server said: {said}; the account needs {} and _INBOX.> to publish and subscribe, and $JS.API.> to publish",
                self.settings.names.subject(">")
            ))),
            (unfit, _) => unfit,
        })?;
        Ok((link, fed, streams))
    }

    async fn fit(&self, link: &Link) -> Result<Streams, Unfit> {
        let streams = layout::ensure(link, &self.settings).await?;
        for (stream, info) in streams.rooms.iter().enumerate() {
            if self.epochs.settle(link, &self.settings.names, stream, info).await? {
                self.marks.forget(stream);
            }
        }
        self.read_burials(link).await?;
        Ok(streams)
    }

    /// Until the link breaks; why it did.
    async fn serve(
        &self,
        link: &Arc<Link>,
        fed: mpsc::Receiver<Feed>,
        streams: &Streams,
        first: &mut Option<oneshot::Sender<First>>,
    ) -> Reason {
        let reading = feed::read(fed, |room, message| self.hear(room, message));
        // Whichever ends, the link is given up, and everything above is told to compare when there is a new one.
        let reason = tokio::select! {
            () = link.gone.cancelled() => Reason::Closed,
            () = reading => Reason::Closed,
            reason = self.work(link, streams, first) => reason,
        };
        link.gone.cancel();
        reason
    }

    async fn work(&self, link: &Arc<Link>, streams: &Streams, first: &mut Option<oneshot::Sender<First>>) -> Reason {
        let (log, state) = match self.subscribe_everything(link).await {
            Ok(live) => live,
            Err(problem) => {
                tracing::warn!(%problem, "NATS: the connection broke while it was made");
                return Reason::Timeout;
            }
        };
        self.hears_anew();
        self.link.store(Some(Arc::clone(link)));
        self.metrics.backplane().link_up(LinkKind::Command, true);
        tracing::info!(hosts = self.settings.url.hosts_shown(), "NATS: connected");
        self.tell_sink(|sink| {
            sink.up(true);
            sink.suspect(Scope::All);
            sink.control_suspect();
        });
        first.take().map(|first| first.send(Ok(())));
        let ended = tokio::select! {
            () = self.sing_on(link) => return Reason::Canary,
            () = self.watch_drops(link) => return Reason::Closed,
            ended = self.follow_log(link, log, &streams.log) => ended,
            ended = self.follow_state(link, state) => ended,
        };
        if let Err(problem) = ended {
            tracing::warn!(%problem, "NATS: what is told to all nodes is not heard: a new connection is made");
        }
        Reason::Unsubscribed
    }

    /// Rooms that are attached already, and what concerns all nodes.
    async fn subscribe_everything(
        &self,
        link: &Arc<Link>,
    ) -> Result<(async_nats::Subscriber, async_nats::Subscriber), Problem> {
        let live = self.subscribe_all(link).await?;
        let rooms: Vec<_> = self.rooms.lock().values().map(Arc::clone).collect();
        for room in &rooms {
            self.subscribe(link, room).await?;
        }
        self.sweeps.are_due().await;
        // The answer confirms all of them, and says what others changed before they were there.
        for stream in 0..STREAMS {
            self.hear_lineage(link, stream).await?;
        }
        self.read_burials(link).await?;
        Ok(live)
    }

    /// Messages that did not fit are compared with what is stored. Never returns.
    async fn watch_drops(&self, link: &Link) {
        loop {
            link.said.dropped.notified().await;
            tracing::warn!("NATS: messages came faster than they were read: all rooms are compared");
            self.sweeps.are_due().await;
            for stream in 0..STREAMS {
                // If this fails, so does the canary.
                drop(self.hear_lineage(link, stream).await);
            }
            self.tell_sink(|sink| {
                sink.suspect(Scope::All);
                sink.control_suspect();
            });
            // More of them meanwhile are one more round.
            tokio::time::sleep(DROPS_INTERVAL).await;
        }
    }

    fn left(&self, reason: Reason) {
        self.link.store(None);
        let metrics = self.metrics.backplane();
        metrics.link_up(LinkKind::Command, false);
        metrics.link_rebuilt(LinkKind::Command, reason);
        tracing::warn!("NATS: the connection is gone");
        self.tell_sink(|sink| sink.up(false));
    }
}
