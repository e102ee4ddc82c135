//! The CPU time that one handshake takes: that of this thread, around every poll of its future.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

use crate::net::admission::Admission;

/// What one handshake has cost so far.
#[derive(Debug, Default)]
pub struct Meter {
    spent_ns: AtomicU64,
    /// Taken from the pace in advance, for the next piece of work.
    advance_ns: AtomicU64,
}

impl Meter {
    /// Runs `handshake`, and charges what each step of it takes to the pace of shard `index`.
    ///
    /// # Cancel safety
    /// As `handshake`; what it took so far has been charged.
    pub(super) async fn measure<F: Future>(&self, admission: &Admission, index: usize, handshake: F) -> F::Output {
        let mut handshake = pin!(handshake);
        poll_fn(|cx| {
            let before_ns = thread_cpu_ns();
            let polled = handshake.as_mut().poll(cx);
            let taken_ns = thread_cpu_ns().saturating_sub(before_ns);
            self.spent_ns.fetch_add(taken_ns, Relaxed);
            admission.charge(index, taken_ns, self.advance_ns.swap(0, Relaxed));
            polled
        })
        .await
    }

    /// Notes that so much of the next step has been taken from the pace already.
    pub fn advance(&self, cost_ns: u64) {
        self.advance_ns.fetch_add(cost_ns, Relaxed);
    }

    #[must_use]
    pub fn spent_ns(&self) -> u64 {
        self.spent_ns.load(Relaxed)
    }
}

/// CPU time of the calling thread.
pub(super) fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
