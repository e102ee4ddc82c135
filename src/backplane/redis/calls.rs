//! Calls of scripts: to the right shard, again where nothing was done and another place or form will do.

use std::sync::Arc;

use redis::{Pipeline, Value};

use super::super::contract::{Failed, Refusal};
use super::Redis;
use super::error::{Said, judge};
use super::script::Script;
use super::shard::Shard;
use super::topology::Place;

/// Ways that one call may go before it is given up: its text instead of its digest, and a slot that moves.
const ATTEMPTS_MAX: usize = 4;

/// Calls in one pipeline of [`Redis::call_many`]. Others wait behind them on the same link.
const PIPELINE_CALLS_MAX: usize = 128;

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
        self.invoke(Place::Partition(partition), script, keys, args).await
    }

    /// The same for keys of the control slot.
    pub(super) async fn call_ctl(
        &self,
        script: &'static Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Control, script, keys, args).await
    }

    /// As [`Redis::call`], and kept as `backplane.kept` says when it is done.
    pub(super) async fn call_kept<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        partition: u16,
        script: &'static Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Partition(partition), script, keys, args).await
    }

    /// As [`Redis::call_ctl`], and kept as `backplane.kept` says when it is done.
    pub(super) async fn call_ctl_kept(
        &self,
        script: &'static Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Failed> {
        self.invoke(Place::Control, script, keys, args).await
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
                    self.invoke(Place::Partition(call.partition), script, &call.keys, &call.args)
                        .await
                }
                Err(said) => Err(said.into()),
            };
            done.push((*at, answer));
        }
        done
    }

    async fn invoke<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        &self,
        place: Place,
        script: &'static Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Failed> {
        let mut by_text = false;
        for _ in 0..ATTEMPTS_MAX {
            let shard = self.map.load().shard(place).cloned();
            let Some(link) = shard.and_then(|shard| shard.command()) else {
                return Err(Refusal::Away.into());
            };
            match judge(link.send(&script.command(by_text, keys, args)).await?) {
                Ok(value) => return Ok(value),
                // The same caller asks again at once: nobody else has a call of this room under way.
                Err(Said::NoScript) => by_text = true,
                Err(said) => return Err(said.into()),
            }
        }
        Err(Refusal::Away.into())
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
