//! How many connections there may be: on the whole node, and per address.
//!
//! A [`Permit`] lives exactly as long as what it stands for: it is owned by the TLS stream of a TCP
//! connection, or by the socket where HTTP/2 carries several over one connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::net::limit_key;
use crate::telemetry::metrics::{HandshakeResult, Limit};

/// Address maps, so that accepting threads seldom meet.
const MAPS: usize = 16;

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `limits.connections`
    Node,
    /// `limits.connections_per_address`
    Address,
}

impl Refused {
    /// Its word in the count of limits.
    #[must_use]
    pub fn limit(self) -> Limit {
        match self {
            Self::Node => Limit::Connections,
            Self::Address => Limit::ConnectionsPerAddress,
        }
    }

    /// Its word in the count of handshakes.
    #[must_use]
    pub fn result(self) -> HandshakeResult {
        match self {
            Self::Node => HandshakeResult::OverLimit,
            Self::Address => HandshakeResult::PerAddressLimit,
        }
    }
}

/// Counts what is there against the limits.
#[derive(Debug)]
pub struct Permits {
    node_max: usize,
    address_max: usize,
    node: AtomicUsize,
    addresses: [Mutex<HashMap<IpAddr, usize>>; MAPS],
}

impl Permits {
    /// 0 means no limit, for each of the two.
    #[must_use]
    pub fn new(node_max: usize, address_max: usize) -> Arc<Self> {
        let or_none = |max: usize| if max == 0 { usize::MAX } else { max };
        Arc::new(Self {
            node_max: or_none(node_max),
            address_max: or_none(address_max),
            node: AtomicUsize::new(0),
            addresses: Default::default(),
        })
    }

    /// One more connection from `address`.
    ///
    /// # Errors
    /// The limit that it would pass; nothing is counted then.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refused> {
        let mut permit = self.admit_nameless()?;
        permit.name(address)?;
        Ok(permit)
    }

    /// One more connection, whose address is known only later: [`Permit::name`].
    ///
    /// # Errors
    /// There are too many already, of whatever address; nothing is counted then.
    pub fn admit_nameless(self: &Arc<Self>) -> Result<Permit, Refused> {
        if self.node.fetch_add(1, Ordering::Relaxed) >= self.node_max {
            self.node.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Node);
        }
        Ok(Permit {
            permits: Arc::clone(self),
            key: None,
        })
    }

    /// Connections that hold a permit now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.node.load(Ordering::Relaxed)
    }

    /// The limit of the whole node.
    #[must_use]
    pub fn node_max(&self) -> usize {
        self.node_max
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of an address do")]
    fn map(&self, key: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        let bits = match key {
            IpAddr::V4(v4) => v4.to_bits() as usize,
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as usize,
        };
        &self.addresses[bits % MAPS]
    }
}

/// The right of one connection to be there.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
    /// What it counts for under the limit per address.
    key: Option<IpAddr>,
}

impl Permit {
    /// From now on it counts for `address`, and for no other.
    ///
    /// # Errors
    /// That address has as many as it may; this one counts for none then.
    pub fn name(&mut self, address: IpAddr) -> Result<(), Refused> {
        self.forget_address();
        let key = limit_key(address);
        let mut map = self.permits.map(key).lock();
        let here = map.entry(key).or_insert(0);
        if *here >= self.permits.address_max {
            return Err(Refused::Address);
        }
        *here += 1;
        self.key = Some(key);
        Ok(())
    }

    /// Whether it counts for no address yet.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.key.is_none()
    }

    fn forget_address(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut map = self.permits.map(key).lock();
        if let Some(here) = map.get_mut(&key) {
            *here -= 1;
            if *here == 0 {
                map.remove(&key);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.forget_address();
        self.permits.node.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_permit_is_given_back_when_it_is_dropped() {
        let permits = Permits::new(2, 1);
        let first = permits.admit(ANN).expect("within both limits");
        assert_eq!(permits.admit(ANN).err(), Some(Refused::Address));
        let second = permits.admit(BOB).expect("another address");
        assert_eq!(permits.admit(ANN).err(), Some(Refused::Node));
        drop((first, second));
        assert_eq!(permits.held(), 0);
        assert!(permits.admit(ANN).is_ok());
        assert!(
            permits.addresses.iter().all(|map| map.lock().is_empty()),
            "no entry stays behind"
        );
    }

    #[test]
    fn one_ipv6_subscriber_is_one_address() {
        let permits = Permits::new(0, 1);
        let _first = permits.admit("2001:db8:1:2::1".parse().expect("an address"));
        assert!(
            permits
                .admit("2001:db8:1:2:ffff::9".parse().expect("an address"))
                .is_err()
        );
        assert!(permits.admit("2001:db8:1:3::1".parse().expect("an address")).is_ok());
    }

    #[test]
    fn a_permit_counts_for_the_address_it_is_told_last() {
        let permits = Permits::new(3, 1);
        let mut proxied = permits.admit_nameless().expect("within the node's limit");
        let mut another = permits.admit_nameless().expect("a proxy has no limit of its own");
        proxied.name(ANN).expect("the first of this address");
        assert_eq!(another.name(ANN), Err(Refused::Address));
        assert_eq!(permits.admit(ANN).err(), Some(Refused::Address));
        proxied.name(BOB).expect("the first of that address");
        another.name(ANN).expect("its place is free again");
        assert_eq!(permits.held(), 2);
        drop((proxied, another));
        assert_eq!(permits.held(), 0);
        assert!(
            permits.addresses.iter().all(|map| map.lock().is_empty()),
            "no entry stays behind"
        );
    }
}
