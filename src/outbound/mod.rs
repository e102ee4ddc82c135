//! The one way in which this server calls somebody else over HTTP: issuers of keys, the application.
//!
//! `target` reads URLs that the operator wrote, `addresses` (pure) says which addresses a name may lead to, `resolver`
//! looks names up and leaves only those, `client` asks and takes a bounded answer in a bounded time.
//!
//! Never here: a URL out of a token or a message, a redirect that is followed, a proxy or anything else out of the
//! environment, an answer without a limit.

mod addresses;
mod client;
mod failure;
mod resolver;
mod roots;
mod target;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::RootCertStore;

pub use addresses::{AddressClass, Rule};
pub use client::{Answer, Ask, Client};
pub use failure::CallFailed;
pub use target::Target;

use crate::config;
use crate::telemetry::metrics::{Counter, Label, OutboundResult, Purpose};
use resolver::{Lookup, System};

/// Everything that is called by one node; a clone is a reference.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    rule: Arc<Rule>,
    lookup: Arc<dyn Lookup>,
    counts: Arc<Counts>,
    system_roots: OnceLock<Arc<RootCertStore>>,
}

impl Outbound {
    /// By the operator's rule.
    #[must_use]
    pub fn new(config: &config::Outbound) -> Self {
        Self::with_lookup(config, Arc::new(System::default()))
    }

    fn with_lookup(config: &config::Outbound, lookup: Arc<dyn Lookup>) -> Self {
        Self(Arc::new(Inner {
            rule: Arc::new(Rule::new(&config.networks)),
            lookup,
            counts: Arc::default(),
            system_roots: OnceLock::new(),
        }))
    }

    /// A client for one purpose, with connections of its own. `ca_file` (PEM) stands in for the system's roots;
    /// `deadline` is over everything from the look-up of the name to the last byte of the answer.
    ///
    /// # Errors
    /// `ca_file` cannot be read or holds no certificate.
    pub fn client(&self, purpose: Purpose, ca_file: Option<&Path>, deadline: Duration) -> anyhow::Result<Client> {
        let roots = match ca_file {
            Some(path) => Arc::new(roots::of_file(path)?),
            None => Arc::clone(self.0.system_roots.get_or_init(|| Arc::new(roots::of_system()))),
        };
        Client::new(client::Parts {
            purpose,
            roots,
            deadline,
            rule: Arc::clone(&self.0.rule),
            lookup: Arc::clone(&self.0.lookup),
            counts: Arc::clone(&self.0.counts),
        })
    }

    /// What came of all calls, for `Metrics::register_outbound`.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.0.counts)
    }
}

/// Calls by purpose and result.
#[derive(Debug, Default)]
pub struct Counts([[Counter; OutboundResult::ALL.len()]; Purpose::ALL.len()]);

impl Counts {
    /// Calls for `purpose` that came to `result`.
    #[must_use]
    pub fn of(&self, purpose: Purpose, result: OutboundResult) -> &Counter {
        &self.0[purpose.index()][result.index()]
    }
}
