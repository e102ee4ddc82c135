//! One value, and how it is shown.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::kind::Kind;

/// A value of one of the kinds. Paths and words are text.
#[derive(Debug, Clone)]
pub enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Duration(Duration),
    Size(u64),
    Address(SocketAddr),
    Text(String),
    List(Vec<String>),
    Secret(SecretString),
    Secrets(Vec<SecretString>),
}

impl Value {
    /// What a key of this kind is while nobody has set it.
    pub fn unset(kind: &Kind) -> Self {
        match kind {
            Kind::List => Self::List(Vec::new()),
            Kind::Secrets => Self::Secrets(Vec::new()),
            Kind::Secret => Self::Secret(SecretString::default()),
            _ => Self::Text(String::new()),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_unset(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Secret(secret) => secret.expose_secret().is_empty(),
            Self::Secrets(list) => list.is_empty(),
            _ => false,
        }
    }

    /// The value as a person reads it; secrets as `***`, nothing as an empty text.
    pub fn show(&self) -> String {
        match self {
            Self::Bool(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Duration(time) => show_duration(*time),
            Self::Size(bytes) => show_size(*bytes),
            Self::Address(address) => address.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(list) => list.join(", "),
            Self::Secret(_) if self.is_unset() => String::new(),
            Self::Secret(_) => "***".to_owned(),
            Self::Secrets(list) => list.iter().map(show_header).collect::<Vec<_>>().join(", "),
        }
    }
}

/// The largest unit that leaves no fraction: `24h`, `90s`.
pub fn show_duration(time: Duration) -> String {
    const UNITS_MS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let (nanos, millis) = (time.as_nanos(), time.as_millis());
    if nanos != millis * 1_000_000 {
        return humantime::format_duration(time).to_string();
    }
    let unit = UNITS_MS
        .iter()
        .find(|(ms, _)| millis >= *ms && millis.is_multiple_of(*ms));
    match unit {
        Some((ms, unit)) => format!("{}{unit}", millis / ms),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

/// The largest unit that leaves no fraction: `64KiB`, `1000`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// `name=***`; the whole is masked when it has no name.
fn show_header(header: &SecretString) -> String {
    match header.expose_secret().split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None => "***".to_owned(),
    }
}
