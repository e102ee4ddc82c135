//! Calls of scripts: to the right shard, again where nothing was done and another place or form will do.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};

use super::super::contract::{Failed, Refusal};
use super::Redis;
use super::error::{Said, judge};
use super::link::Link;
use super::script::Script;
use super::settings::Host;
use super::shard::{Reason, Shard};
use super::topology::Place;

/// Ways that one call may go before it is given up: its text instead of its digest, and a slot that moves.
const ATTEMPTS_MAX: usize = 4;

/// How long a call waits for a map on which the master is that it was sent to.
const MAP_PATIENCE: Duration = Duration::from_millis(500);

/// Calls in one pipeline of [`Redis::call_many`]. Others wait behind them on the same link.
pub(super) const PIPELINE_CALLS_MAX: usize = 128;

/// One of several calls.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) partition: u16,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
}

impl Redis {
    /// Calls a script whose keys are all of `partition`.
    ///
    /// # Errors
    /// `Refused`: certainly nothing was done. `Unknown`: no answer came, and the link is closed.
    pub(super) async fn call(
        &self,
        partition: u16,
        script: &'static Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Partition(partition), false, script, keys, args)
            .await
    }

    /// The same for keys of the control slot.
    pub(super) async fn call_ctl(
        &self,
        script: &'static Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Control, false, script, keys, args).await
    }

    /// As [`Redis::call`], and kept as `backplane.kept` says when it is done.
    pub(super) async fn call_kept<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        partition: u16,
        script: &'static Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Partition(partition), true, script, keys, args).await
    }

    /// As [`Redis::call_ctl`], and kept as `backplane.kept` says when it is done.
    pub(super) async fn call_ctl_kept(
        &self,
        script: &'static Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Control, true, script, keys, args).await
    }

    /// Many calls of one script, pipelined per shard; an answer each, in order.
    pub(super) async fn call_many(&self, script: &'static Script, calls: &[Invocation]) -> Vec<Result<Value, Failed>> {
        let mut answers: Vec<Result<Value, Failed>> = calls.iter().map(|_| Err(Refusal::Away.into())).collect();
        let shards = self.map.load().shards().to_vec();
        let by_shard = shards.iter().map(|shard| async move {
            let map = self.map.load_full();
            let mine = |at: &usize| {
                let owner = map.shard(Place::Partition(calls[*at].partition));
                owner.is_some_and(|owner| Arc::ptr_eq(owner, shard))
            };
            let mine: Vec<usize> = (0..calls.len()).filter(mine).collect();
            let mut answered = Vec::with_capacity(mine.len());
            for piece in mine.chunks(PIPELINE_CALLS_MAX) {
                answered.extend(self.pipelined(shard, script, calls, piece).await);
            }
            answered
        });
        for (at, answer) in futures_util::future::join_all(by_shard).await.into_iter().flatten() {
            answers[at] = answer;
        }
        answers
    }

    async fn pipelined(
        &self,
        shard: &Shard,
        script: &'static Script,
        calls: &[Invocation],
        piece: &[usize],
    ) -> Vec<(usize, Result<Value, Failed>)> {
        let failed = |failed: Failed| piece.iter().map(|at| (*at, Err(failed))).collect();
        let Some(link) = shard.command() else {
            return failed(Refusal::Away.into());
        };
        let mut pipeline = Pipeline::with_capacity(piece.len());
        for at in piece {
            pipeline.add_command(script.command(false, &calls[*at].keys, &calls[*at].args));
        }
        let answers = match link.send_all(&pipeline).await {
            Ok(answers) => answers,
            Err(why) => return failed(why),
        };
        let mut done = Vec::with_capacity(piece.len());
        for (at, answer) in piece.iter().zip(answers) {
            let call = &calls[*at];
            let answer = match judge(answer) {
                Ok(value) => Ok(value),
                Err(Said::NoScript | Said::Moved(_) | Said::Ask(_)) => {
                    self.invoke(Place::Partition(call.partition), false, script, &call.keys, &call.args)
                        .await
                }
                Err(said) => Err(said.into()),
            };
            done.push((*at, answer));
        }
        done
    }

    /// A script on a link of the caller's choice.
    pub(super) async fn on_link<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        link: &Link,
        script: &'static Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Failed> {
        match judge(link.send(&script.command(false, keys, args)).await?) {
            Err(Said::NoScript) => Ok(judge(link.send(&script.command(true, keys, args)).await?)?),
            answer => Ok(answer?),
        }
    }

    async fn invoke<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        place: Place,
        is_kept: bool,
        script: &'static Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Failed> {
        let (mut by_text, mut elsewhere, mut asking) = (false, None, false);
        for _ in 0..ATTEMPTS_MAX {
            let shard = elsewhere.take().or_else(|| self.shard(place)).ok_or(Refusal::Away)?;
            let command = script.command(by_text, keys, args);
            let answer = send(
                &shard,
                command,
                is_kept && self.is_replicated(),
                std::mem::take(&mut asking),
            )
            .await?;
            match judge(answer) {
                Ok(value) => return Ok(value),
                // The same caller asks again at once: nobody else has a call of this room under way.
                Err(Said::NoScript) => by_text = true,
                Err(Said::Moved(address)) => elsewhere = self.moved(&address).await,
                Err(Said::Ask(address)) => {
                    // A master without a slot of its own is not on the map: what moves there waits.
                    elsewhere = Some(self.shard_at(&address).ok_or(Refusal::Away)?);
                    asking = true;
                }
                Err(Said::NotMaster) => {
                    shard.doubt(Reason::Role);
                    return Err(Refusal::Away.into());
                }
                Err(Said::Refused(refusal)) => return Err(refusal.into()),
            }
        }
        Err(Refusal::Away.into())
    }

    /// Who holds the place now, if it is on the map; else whoever the next map says.
    async fn moved(&self, address: &str) -> Option<Arc<Shard>> {
        let mut changed = self.changed.subscribe();
        self.refresh.notify_one();
        if let Some(shard) = self.shard_at(address) {
            return Some(shard);
        }
        let _new_map = tokio::time::timeout(MAP_PATIENCE, changed.changed()).await;
        self.shard_at(address)
    }

    fn shard_at(&self, address: &str) -> Option<Arc<Shard>> {
        let host = Host::parse(address)?;
        let map = self.map.load();
        map.shards()
            .iter()
            .find(|shard| shard.host.as_ref() == Some(&host))
            .cloned()
    }
}

async fn send(shard: &Shard, command: Cmd, is_replicated: bool, asking: bool) -> Result<Value, Failed> {
    if is_replicated && !asking {
        let publisher = shard.publisher().ok_or(Refusal::Away)?;
        return publisher.send(command).await;
    }
    let link = shard.command().ok_or(Refusal::Away)?;
    if !asking {
        return link.send(&command).await;
    }
    // What is kept on a replica only is refused while its slot moves: ASKING holds for the next command only.
    if is_replicated {
        return Err(Refusal::Away.into());
    }
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.add_command(cmd("ASKING")).add_command(command);
    link.send_all(&pipeline).await?.pop().ok_or(Failed::Unknown)
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
