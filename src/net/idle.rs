//! Ends HTTP connections that serve nothing: without it an HTTP/2 connection without streams stays for ever.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Requests and HTTP/2 sockets that one connection serves now.
#[derive(Debug, Clone, Default)]
pub struct InService(Arc<AtomicUsize>);

/// One request or HTTP/2 socket; the connection is not idle while it lives.
#[derive(Debug)]
pub struct Serving(InService);

impl InService {
    #[must_use]
    pub fn begin(&self) -> Serving {
        self.0.fetch_add(1, Ordering::Relaxed);
        Serving(self.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
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

    /// Called when nothing can be read: true once that was so for `after` with nothing in service.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.in_service.0.load(Ordering::Relaxed) == 0 {
                return true;
            }
            self.timer.as_mut().reset(Instant::now() + self.after);
        }
        false
    }
}
