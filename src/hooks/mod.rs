//! What we call on a backend: questions whose answer decides (`open`, `join`, `chat`, `call`), and what it is told.
//!
//! `event` is what is sent, `sign` vouches for it, `endpoint` sends it, bounded in time, number and size, and leaves a
//! backend alone that keeps failing (`circuit`). `pattern` says which hook is for which room or call. `ask` puts
//! questions, and `answer` reads what comes back. `tell` sees that everything that happened gets there.

pub mod answer;
pub mod ask;
pub mod circuit;
pub mod endpoint;
pub mod event;
pub mod pattern;
pub mod sign;
pub mod tell;

use std::sync::Arc;

pub use answer::Changes;
pub use ask::{About, Asking, Outcome, Question};
pub use endpoint::{Endpoint, HookFailed};
pub use event::Event;
use sign::Signer;

use crate::config::Config;
use crate::outbound::Outbound;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;

/// The hooks of one node. Without any, each is none.
#[derive(Default)]
pub struct Hooks {
    pub asking: Option<Arc<Asking>>,
}

impl Hooks {
    /// # Errors
    /// A secret, a URL or a CA file that cannot be used; `check-config` finds the same.
    pub fn new(config: &Config, outbound: &Outbound, metrics: &Metrics, traces: &Traces) -> anyhow::Result<Self> {
        if !config.hooks.is_on() {
            return Ok(Self::default());
        }
        let signer = Signer::new(&config.hooks).map_err(|what| anyhow::anyhow!("hooks.secret: {what}"))?;
        let signer = Arc::new(signer);
        Ok(Self {
            asking: Asking::new(config, &signer, outbound, metrics, traces.clone())?,
        })
    }
}
