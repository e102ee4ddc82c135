//! One connection to one server. It is used until something is wrong with it, then closed, and never used again: after a
//! timeout its answers would be those of earlier questions.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::contract::{Failed, Refusal};
use super::settings::Host;

/// A connection that several callers use at once. Answers come in the order of the questions.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// The server.
    pub(super) host: Host,
    closed: CancellationToken,
    /// Who drops the last handle closes the connection.
    _guard: DropGuard,
    call_timeout: Duration,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Link {
    /// `closed` ends the task that drives the connection, and is cancelled by its end.
    pub(super) fn new(
        connection: MultiplexedConnection,
        host: Host,
        closed: CancellationToken,
        call_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            host,
            _guard: closed.clone().drop_guard(),
            closed,
            call_timeout,
        })
    }

    /// One question.
    ///
    /// # Errors
    /// `Away` when it was closed before, else `Unknown`. An error that the server tells is an answer.
    ///
    /// # Cancel safety
    /// The connection stays whole; the command may have been done.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Failed> {
        let mut connection = self.connection.clone();
        self.within(self.call_timeout, async move {
            connection.send_packed_command(command).await
        })
        .await
    }

    /// Several questions in one go; one answer each, in order. As [`Link::send`].
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Failed> {
        self.send_all_within(commands, self.call_timeout).await
    }

    /// As [`Link::send_all`], for commands that may take longer than others.
    pub(super) async fn send_all_within(&self, commands: &Pipeline, timeout: Duration) -> Result<Vec<Value>, Failed> {
        let mut connection = self.connection.clone();
        let count = commands.len();
        let values = self
            .within(timeout, async move {
                connection.send_packed_commands(commands, 0, count).await
            })
            .await?;
        if values.len() == count {
            Ok(values)
        } else {
            self.close();
            Err(Failed::Unknown)
        }
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        asked: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, Failed> {
        if self.is_closed() {
            return Err(Failed::Refused(Refusal::Away));
        }
        // Dropped with the question: whether it was done is not known.
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(timeout, asked) => answer,
            () = self.closed.cancelled() => return Err(Failed::Unknown),
        };
        if let Ok(Ok(answer)) = answer {
            Ok(answer)
        } else {
            self.close();
            Err(Failed::Unknown)
        }
    }

    /// Ends it, for all who hold it.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Cancel safe.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
