//! Batches that a replica must have before they count. WAIT holds up every later command of its connection, so they
//! have a link of their own, and all that gathered while one WAIT ran share the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline, Value, cmd};
use tokio::sync::{mpsc, oneshot};

use super::super::contract::{Failed, Refusal};
use super::link::Link;
use super::telemetry::Telemetry;
use crate::telemetry::metrics::CallKind;

/// Calls that wait for the one WAIT under way; their callers wait behind them.
const QUEUE_MAX: usize = 1_024;

/// Calls before one WAIT.
const GROUP_MAX: usize = 64;

#[derive(Debug)]
struct Job {
    command: Cmd,
    answer: oneshot::Sender<Result<Value, Failed>>,
}

/// Hands calls to the task that owns the link.
#[derive(Debug)]
pub(super) struct Publisher(mpsc::Sender<Job>);

/// How many replicas must answer, and for how long they are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) replicas: u32,
    pub(super) timeout: Duration,
}

impl Publisher {
    /// The handle, and what must run as long as the link is used.
    pub(super) fn new(
        link: Arc<Link>,
        wait: Wait,
        call_timeout: Duration,
        telemetry: Telemetry,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        (Self(jobs), run(link, wait, call_timeout, queue, telemetry))
    }

    /// As [`Link::send`], and enough replicas have it; if they do not say so in time, `Unknown`.
    pub(super) async fn send(&self, command: Cmd) -> Result<Value, Failed> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(Job { command, answer })
            .await
            .map_err(|_| Failed::Refused(Refusal::Away))?;
        answered.await.unwrap_or(Err(Failed::Unknown))
    }
}

/// Cancel safe: who waits for an answer hears that it is unknown.
async fn run(
    link: Arc<Link>,
    wait: Wait,
    call_timeout: Duration,
    mut queue: mpsc::Receiver<Job>,
    telemetry: Telemetry,
) {
    let mut jobs = Vec::with_capacity(GROUP_MAX);
    while queue.recv_many(&mut jobs, GROUP_MAX).await > 0 {
        let mut pipeline = Pipeline::with_capacity(jobs.len() + 1);
        for job in &jobs {
            pipeline.add_command(job.command.clone());
        }
        let mut waiting = cmd("WAIT");
        waiting
            .arg(wait.replicas)
            .arg(u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX));
        pipeline.add_command(waiting);
        let asked = Instant::now();
        match link.send_all_within(&pipeline, call_timeout + wait.timeout).await {
            Ok(mut answers) => {
                let has = matches!(answers.pop(), Some(Value::Int(has)) if has >= i64::from(wait.replicas));
                telemetry.call(CallKind::Wait, (!has).then_some(Failed::Unknown), asked);
                for (job, answer) in jobs.drain(..).zip(answers) {
                    let is_error = matches!(answer, Value::ServerError(_));
                    let kept = if has || is_error {
                        Ok(answer)
                    } else {
                        Err(Failed::Unknown)
                    };
                    // Who no longer waits has given up.
                    let _ = job.answer.send(kept);
                }
            }
            Err(why) => {
                telemetry.call(CallKind::Wait, Some(why), asked);
                for job in jobs.drain(..) {
                    let _ = job.answer.send(Err(why));
                }
            }
        }
    }
}
