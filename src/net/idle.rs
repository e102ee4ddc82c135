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

#[derive(Debug, Default)]
struct Busy {
    /// Requests and HTTP/2 sockets that are served now.
    serving: AtomicUsize,
    /// All that ever began.
    begun: AtomicU64,
    corked: AtomicBool,
}

/// One request or HTTP/2 socket; the connection is not idle while it lives.
#[derive(Debug)]
pub struct Serving(InService);

impl InService {
    #[must_use]
    pub fn begin(&self) -> Serving {
        self.0.serving.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Serving(self.clone())
    }

    /// An upgrade was granted: its answer may wait for the first frame and leave in one record, one `send` and
    /// one packet with it.
    pub fn cork(&self) {
        self.0.corked.store(true, Ordering::Relaxed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The idle timer of one HTTP connection. It looks once per `after`, so an idle connection lives for up to
/// twice that: setting the timer anew for each request would cost more than it is worth.
#[derive(Debug)]
pub struct HttpIdle {
    in_service: InService,
    after: Duration,
    /// `begun` at the last look.
    begun: u64,
    timer: Pin<Box<Sleep>>,
}

impl HttpIdle {
    #[must_use]
    pub fn new(in_service: InService, after: Duration) -> Self {
        Self {
            in_service,
            after,
            begun: 0,
            timer: Box::pin(sleep(after)),
        }
    }

    /// Whether what hyper writes shall wait for the first frame of a socket.
    #[must_use]
    pub fn is_corked(&self) -> bool {
        self.in_service.0.corked.load(Ordering::Relaxed)
    }

    /// Called when nothing can be read: true once nothing was in service for `after`.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let begun = self.in_service.0.begun.load(Ordering::Relaxed);
            let was_used = std::mem::replace(&mut self.begun, begun) != begun;
            if !was_used && self.in_service.0.serving.load(Ordering::Relaxed) == 0 {
                return true;
            }
            self.timer.as_mut().reset(Instant::now() + self.after);
        }
        false
    }
}
