//! Which addresses may be called. Pure.
//!
//! The operator's URL names a host. What that name leads to is said by whoever runs its DNS, who might let a public name
//! point at this machine, at a neighbour, or at the cloud's metadata service (SSRF by DNS rebinding). So a public name
//! leads to public addresses only, and a name that nobody outside can own may also lead inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Names under these belong to nobody in the public DNS (RFC 6761, 6762, 8375, 9476; Kubernetes' services).
const INSIDE_SUFFIXES: [&str; 5] = [".local", ".internal", ".localhost", ".home.arpa", ".svc"];

/// Services that give credentials to whoever can reach them, at addresses that are not link-local: AWS and Google over
/// IPv6, Alibaba, Azure, Oracle's classic.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// What sort of address it is, by the IANA registries of special-purpose addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    Public,
    /// RFC 1918, carriers' NAT (RFC 6598), benchmarks (RFC 2544), unique and site-local IPv6.
    Private,
    Loopback,
    LinkLocal,
    /// A cloud's metadata service.
    Metadata,
    Multicast,
    Unspecified,
    Broadcast,
    /// Documentation, tunnels and what is not given out.
    Reserved,
}

impl AddressClass {
    /// Of the address that packets would reach in the end.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = unwrapped(address);
        if METADATA.contains(&address) {
            return Self::Metadata;
        }
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "a cloud's metadata service",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
        }
    }

    /// Nothing that is called by anybody is there, or what must not be.
    const fn is_never(self) -> bool {
        matches!(
            self,
            Self::LinkLocal | Self::Metadata | Self::Multicast | Self::Unspecified | Self::Broadcast
        )
    }
}

/// The operator's rule: what has been said above, and networks that are allowed whatever is there.
#[derive(Debug, Default)]
pub struct Rule {
    networks: Vec<IpNet>,
}

impl Rule {
    /// `networks`: `outbound.networks`.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        Self {
            networks: networks.to_vec(),
        }
    }

    /// Whether `name` may lead to `address`.
    ///
    /// # Errors
    /// What is there instead.
    pub fn check_resolved(&self, name: &str, address: IpAddr) -> Result<(), AddressClass> {
        let class = AddressClass::of(address);
        let is_allowed = match class {
            AddressClass::Public => true,
            AddressClass::Private | AddressClass::Loopback => is_inside(name),
            _ => false,
        };
        self.verdict(is_allowed, address, class)
    }

    /// Whether `address` may stand in the operator's own URL, where it is taken at its word.
    ///
    /// # Errors
    /// What is there instead.
    pub fn check_literal(&self, address: IpAddr) -> Result<(), AddressClass> {
        let class = AddressClass::of(address);
        self.verdict(!class.is_never(), address, class)
    }

    fn verdict(&self, is_allowed: bool, address: IpAddr, class: AddressClass) -> Result<(), AddressClass> {
        let address = unwrapped(address);
        let is_listed = || self.networks.iter().any(|network| network.contains(&address));
        if is_allowed || is_listed() { Ok(()) } else { Err(class) }
    }
}

/// Whether nobody outside can own `name`: it has one label, or a suffix that is not in the public DNS.
fn is_inside(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    !name.contains('.') || INSIDE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // ::1 and :: are not IPv4 addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        // SIIT (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn of_v4(address: Ipv4Addr) -> AddressClass {
    match address.octets() {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => {
            AddressClass::Private
        }
        [169, 254, ..] => AddressClass::LinkLocal,
        [224..=239, ..] => AddressClass::Multicast,
        [255, 255, 255, 255] => AddressClass::Broadcast,
        [240..=255, ..] | [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] => {
            AddressClass::Reserved
        }
        _ => AddressClass::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> AddressClass {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => AddressClass::Private,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        // Teredo, ORCHID and others of the IETF; documentation twice.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => AddressClass::Reserved,
        // Everything else that is given out (RFC 4291 section 2.4).
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

#[cfg(test)]
mod tests;
