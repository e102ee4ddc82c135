//! Ends HTTP connections that serve nothing: without it an HTTP/2 connection without streams stays for ever.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// What one HTTP connection is busy with.
#[derive(Debug, Clone, Default)]
pub struct InService(Arc<Busy>);

#[derive(Debug)]
struct Busy {
    /// Requests and HTTP/2 sockets that are served now.
    serving: AtomicUsize,
    corked: AtomicBool,
    /// HTTP/2 sockets that were cut with something unsent.
    cut: AtomicUsize,
    since: Instant,
    /// When something last happened, milliseconds after `since`.
    touched_ms: AtomicU64,
}

impl Default for Busy {
    fn default() -> Self {
        Self {
            serving: AtomicUsize::new(0),
            corked: AtomicBool::new(false),
            cut: AtomicUsize::new(0),
            since: Instant::now(),
            touched_ms: AtomicU64::new(0),
        }
    }
}

impl Busy {
    fn touch(&self) {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.touched_ms.store(now_ms, Ordering::Relaxed);
    }
}

/// HTTP/2 sockets of one connection that may be cut. hyper keeps the stream of each, which has no reset of its own,
/// until the connection ends; more of them end it.
const CUT_SOCKETS_MAX: usize = 8;

/// One request or HTTP/2 socket; the connection is not idle while it lives.
#[derive(Debug)]
pub struct Serving(InService);

impl InService {
    #[must_use]
    pub fn begin(&self) -> Serving {
        self.0.serving.fetch_add(1, Ordering::Relaxed);
        Serving(self.clone())
    }

    /// An upgrade was granted: its answer may wait for the first frame and leave in one record, one `send` and
    /// one packet with it.
    pub fn cork(&self) {
        self.0.corked.store(true, Ordering::Relaxed);
    }

    /// An HTTP/2 socket was cut with something unsent.
    pub fn cut(&self) {
        self.0.cut.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.touch();
        self.0.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The idle timer of one HTTP connection.
#[derive(Debug)]
pub struct HttpIdle {
    in_service: InService,
    after: Duration,
    timer: Pin<Box<Sleep>>,
}

impl HttpIdle {
    #[must_use]
    pub fn new(in_service: InService, after: Duration) -> Self {
        Self {
            in_service,
            after,
            timer: Box::pin(sleep(after)),
        }
    }

    /// Whether what hyper writes shall wait for the first frame of a socket.
    #[must_use]
    pub fn is_corked(&self) -> bool {
        self.in_service.0.corked.load(Ordering::Relaxed)
    }

    /// Called when nothing can be read: true once nothing was in service for `after`, or when too many
    /// sockets were cut.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let busy = &self.in_service.0;
        if busy.cut.load(Ordering::Relaxed) > CUT_SOCKETS_MAX {
            return true;
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let serving = busy.serving.load(Ordering::Relaxed) > 0;
            let touched = busy.since + Duration::from_millis(busy.touched_ms.load(Ordering::Relaxed));
            let end = if serving {
                Instant::now() + self.after
            } else {
                touched + self.after
            };
            if end <= Instant::now() {
                return true;
            }
            self.timer.as_mut().reset(end);
        }
        false
    }
}
