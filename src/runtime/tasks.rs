//! The only place where tasks are spawned: each has an owner that can wait for it.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of one node.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    connections: TaskTracker,
    services: CancellationToken,
}

impl Tasks {
    /// A service of the node, under a span of this name: runs until it ends or the node stops. It must be
    /// cancel safe.
    #[expect(clippy::disallowed_methods, reason = "every other spawn comes through here")]
    pub fn spawn(&self, name: &'static str, service: impl Future<Output = ()> + Send + 'static) {
        let stop = self.services.clone();
        let run = async move {
            // Nothing is lost: services keep their state outside of the future.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = service => {}
            }
        };
        drop(tokio::spawn(run.instrument(tracing::debug_span!("service", name))));
    }

    /// A connection's task, on the runtime of the calling thread: the one that serves its shard. The node
    /// waits for it when it stops.
    #[expect(clippy::disallowed_methods, reason = "every other spawn comes through here")]
    pub fn spawn_here(&self, connection: impl Future<Output = ()> + Send + 'static) {
        // The token in the future is 8 bytes; the span that a service has would cost every idle socket more.
        drop(tokio::spawn(self.connections.track_future(connection)));
    }

    /// Waits until no connection's task is left.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connections_ended(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// Connections' tasks that still run.
    #[must_use]
    pub fn connections_left(&self) -> usize {
        self.connections.len()
    }

    /// Ends every service.
    pub fn stop_services(&self) {
        self.services.cancel();
    }

    /// Cancelled when services end.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.services.clone()
    }
}
