//! Asks sentinels where the master is, and hears when they make another one.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{PushInfo, PushKind, Value, cmd};
use std::sync::Arc;
use std::time::Duration;

use super::Redis;
use super::backoff::Backoff;
use super::error::judge;
use super::link::Link;
use super::problem::Problem;
use super::reply::{array, text};
use super::settings::{Host, Places};
use super::shard::{Reason, Shard};
use crate::telemetry::metrics::Link as LinkKind;

/// How often the sentinel that is listened to is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(2);

impl Redis {
    /// Where most of the sentinels say that the master is. One of a minority may be cut off, together with a master that
    /// is none any more.
    pub(super) async fn ask_sentinels(&self) -> Result<Host, Problem> {
        let Places::Sentinels { hosts, master } = &self.settings.places else {
            unreachable!("only a shard without an address asks, and only sentinels make one");
        };
        let mut answers: FuturesUnordered<_> = hosts.iter().map(|host| self.ask_sentinel(host, master)).collect();
        let mut heard: Vec<Host> = Vec::with_capacity(hosts.len());
        let mut agreed = 0;
        while let Some(answer) = answers.next().await {
            let Some(answer) = answer else { continue };
            heard.push(answer);
            let newest = &heard[heard.len() - 1];
            let votes = heard.iter().filter(|host| *host == newest).count();
            agreed = agreed.max(votes);
            if votes > hosts.len() / 2 {
                return Ok(newest.clone());
            }
        }
        Err(Problem::NoMajority {
            master: master.clone(),
            answered: agreed,
            asked: hosts.len(),
        })
    }

    async fn ask_sentinel(&self, sentinel: &Host, master: &str) -> Option<Host> {
        let pushes = None::<fn(PushInfo) -> Result<(), ()>>;
        let link = self.started().dialer.dial_sentinel(sentinel, pushes).await;
        let link = link.inspect_err(|why| tracing::debug!(%why, "redis: sentinel")).ok()?;
        let mut question = cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(master);
        let mut answer = array(judge(link.send(&question).await.ok()?).ok()?).ok()?;
        let (name, port) = (text(answer.next()).ok()?, text(answer.next()).ok()?);
        Host::parse(&format!("{name}:{port}"))
    }

    /// Listens to one sentinel after the other, whichever answers, and doubts the links as soon as it tells of another
    /// master. Cancel safe.
    pub(super) async fn follow_sentinels(self: Arc<Self>, shard: Arc<Shard>) {
        let Places::Sentinels { hosts, master } = &self.settings.places else {
            return;
        };
        let mut backoff = Backoff::default();
        for sentinel in hosts.iter().cycle() {
            if let Some(link) = self.hear_sentinel(sentinel, master, &shard).await {
                self.telemetry.link_up(LinkKind::Sentinel, true);
                backoff.reset();
                // What it told before we listened is seen by the links' own questions, a second later.
                while link.send(&cmd("PING")).await.is_ok() {
                    tokio::select! {
                        () = link.closed() => {}
                        () = tokio::time::sleep(PING_EVERY) => {}
                    }
                }
                self.telemetry.link_up(LinkKind::Sentinel, false);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn hear_sentinel(&self, sentinel: &Host, master: &str, shard: &Arc<Shard>) -> Option<Arc<Link>> {
        let (ours, shard) = (format!("{master} "), Arc::clone(shard));
        let hear = move |push: PushInfo| -> Result<(), ()> {
            // `mymaster 127.0.0.1 6379 127.0.0.1 6380`
            if push.kind == PushKind::Message
                && matches!(push.data.get(1), Some(Value::BulkString(told)) if told.starts_with(ours.as_bytes()))
            {
                shard.doubt(Reason::SwitchMaster);
            }
            Ok(())
        };
        let link = self.started().dialer.dial_sentinel(sentinel, Some(hear)).await.ok()?;
        let mut subscribe = cmd("SUBSCRIBE");
        subscribe.arg("+switch-master");
        judge(link.send(&subscribe).await.ok()?).ok()?;
        Some(link)
    }
}
