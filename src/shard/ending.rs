//! Ends connections that no longer count: each shard looks over its own, once per batch of revocations and kicks. No
//! index of connections by user: it would cost every idle one memory, for something that hardly ever happens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::auth::revocations::{Hit, Revocations};
use crate::auth::{self, Identity, UnixSeconds};
use crate::connection::{Conn, Pushed, Session};
use crate::protocol::close::Close;
use crate::runtime::now_ms;
use crate::shard::Shard;
use crate::shard::inbox::Command;
use crate::shard::members::Local;
use crate::telemetry::metrics::{Label, Metrics, SubjectKind};

/// Connections looked at before the shard does other work: a fraction of a millisecond.
const LOOKED_AT_PER_TURN: usize = 1_024;

/// What is carried out together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Hits once whoever is named.
    pub kicked: Revocations,
    /// When what is in it was told, ms since the Unix epoch.
    pub told_ms: Vec<u64>,
}

/// Whom to end: everybody who is revoked, and who is kicked besides.
pub struct Ending {
    revoked: Arc<RwLock<Revocations>>,
    batch: Batch,
    metrics: Arc<Metrics>,
    /// Gone with the last shard that was at it, even if one panicked.
    _over: oneshot::Sender<()>,
}

impl Ending {
    /// The receiver resolves (to an error) when no shard is at it any more.
    #[must_use]
    pub fn new(
        revoked: Arc<RwLock<Revocations>>,
        batch: Batch,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (over, is_over) = oneshot::channel();
        let ending = Self {
            revoked,
            batch,
            metrics,
            _over: over,
        };
        (Arc::new(ending), is_over)
    }

    fn judge(&self, revoked: &Revocations, conn: &Conn, now: UnixSeconds) -> Option<(Close, Hit)> {
        let judge = |known: &Revocations, identity: &Identity, session: Session| {
            if known.names_sessions() {
                session.with_name(|name| known.judge(identity, Some(name), now))
            } else {
                known.judge(identity, None, now)
            }
        };
        conn.judged(|identity| {
            let kicked = judge(&self.batch.kicked, identity, conn.session).map(|hit| (Close::KICKED, hit));
            kicked.or_else(|| judge(revoked, identity, conn.session).map(|hit| (Close::TOKEN_REVOKED, hit)))
        })
    }
}

impl Drop for Ending {
    /// The last shard is done: nobody here is left whom it was about.
    fn drop(&mut self) {
        let now_ms = now_ms();
        for told_ms in &self.batch.told_ms {
            let effect = Duration::from_millis(now_ms.saturating_sub(*told_ms));
            self.metrics.revocation().effect(effect.as_secs_f64());
        }
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

impl Shard {
    /// Does a piece of it, and the rest in later turns: who comes meanwhile is judged on the way in.
    pub(super) fn end(&self, local: &mut Local, ending: Arc<Ending>, from: u32, now_ms: u64) {
        let now = auth::now();
        let (piece, next) = local.piece(from, LOOKED_AT_PER_TURN);
        let hit: Vec<_> = {
            let revoked = ending.revoked.read();
            piece
                .filter_map(|conn| Some((Arc::clone(conn), ending.judge(&revoked, conn, now)?)))
                .collect()
        };
        let mut closed = [0; SubjectKind::ALL.len()];
        for (conn, (close, hit)) in hit {
            if self.close(local, &conn, close, 0, now_ms) != Pushed::Dropped {
                closed[kind(hit).index()] += 1;
            }
        }
        for (kind, closed) in SubjectKind::ALL.iter().zip(closed).filter(|(_, closed)| *closed > 0) {
            self.metrics.revocation().closed(*kind, closed);
        }
        if let Some(from) = next {
            self.inbox.push(Command::End { ending, from });
        }
    }
}

const fn kind(hit: Hit) -> SubjectKind {
    match hit {
        Hit::User => SubjectKind::User,
        Hit::Session => SubjectKind::Session,
        Hit::Token => SubjectKind::Token,
    }
}
