//! Names to addresses, through the rule. What was checked is what is dialled: the connector asks here, and nowhere else.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::addresses::{AddressClass, Rule};

/// Look-ups at the same time: each holds a thread for as long as the system's resolver likes.
const LOOKUPS_MAX: usize = 8;

/// The addresses of a name.
pub(super) type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Whoever knows them; tests have one that lies.
pub(super) trait Lookup: Send + Sync {
    fn lookup(&self, name: String) -> Looking;
}

/// The system's resolver.
pub(super) struct System(Arc<Semaphore>);

impl Default for System {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Lookup for System {
    fn lookup(&self, name: String) -> Looking {
        let places = Arc::clone(&self.0);
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let look = move || {
                // Who asked may be gone by then; the place is taken for as long as the thread is.
                let _place = place;
                (name.as_str(), 0)
                    .to_socket_addrs()
                    .map(|found| found.map(|at| at.ip()).collect())
            };
            tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?
        })
    }
}

/// Every address of a name is one that it may not lead to.
#[derive(Debug)]
pub(super) struct ForbiddenName {
    class: AddressClass,
}

impl fmt::Display for ForbiddenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the name leads to addresses that it may not lead to ({})",
            self.class.as_str()
        )
    }
}

impl std::error::Error for ForbiddenName {}

/// A resolver whose answers the rule has seen.
pub(super) struct Filtered {
    pub rule: Arc<Rule>,
    pub lookup: Arc<dyn Lookup>,
}

impl Resolve for Filtered {
    fn resolve(&self, name: Name) -> Resolving {
        let (rule, looking) = (Arc::clone(&self.rule), self.lookup.lookup(name.as_str().to_owned()));
        Box::pin(async move {
            let mut forbidden = None;
            let mut good = Vec::new();
            for address in looking.await? {
                match rule.check_resolved(name.as_str(), address) {
                    // The connector puts the URL's port in for 0.
                    Ok(()) => good.push(SocketAddr::new(address, 0)),
                    Err(class) => forbidden = Some(class),
                }
            }
            match forbidden {
                Some(class) if good.is_empty() => Err(ForbiddenName { class }.into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}
