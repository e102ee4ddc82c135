//! The stages of a probe, what each came to, and what a failure means.

use std::time::Duration;

/// What is done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Dns,
    Tcp,
    Tls,
    Upgrade,
    /// The first frame: `connected`, or a close that says why not.
    Auth,
    Join,
    /// A second connection to another node, up to its `join`.
    Via,
    /// From saying something to hearing it oneself, and its `ok`.
    Publish,
    /// From saying it to hearing it on the other node.
    ViaDelivery,
    Ping,
    Close,
}

impl Stage {
    /// In order.
    pub const ALL: [Self; 11] = [
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Upgrade,
        Self::Auth,
        Self::Join,
        Self::Via,
        Self::Publish,
        Self::ViaDelivery,
        Self::Ping,
        Self::Close,
    ];

    /// For tables, JSON and metric labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Auth => "auth",
            Self::Join => "join",
            Self::Via => "via",
            Self::Publish => "publish",
            Self::ViaDelivery => "via_delivery",
            Self::Ping => "ping",
            Self::Close => "close",
        }
    }
}

/// Which kind of thing went wrong: one exit code each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The server answered, but not as it should.
    Wrong,
    /// No way there: name or TCP.
    Unreachable,
    Tls,
    /// No 101, or turned away before anybody was asked for a token.
    Refused,
    /// 1008 with one of the protocol's words.
    Auth,
    /// Nothing came in time.
    Timeout,
}

impl Kind {
    /// Exit code of the process.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Wrong => 1,
            Self::Unreachable => 3,
            Self::Tls => 4,
            Self::Refused => 5,
            Self::Auth => 6,
            Self::Timeout => 7,
        }
    }
}

/// Why a stage did not pass. The texts may quote the server: they are [`plain`] before anybody sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub kind: Kind,
    /// What happened.
    pub what: String,
    /// What is likely wrong, and what to do.
    pub help: String,
}

impl Trouble {
    pub fn new(kind: Kind, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            help: help.into(),
        }
    }
}

/// A stage that is over.
#[derive(Debug, Clone)]
pub struct Step {
    pub stage: Stage,
    pub took: Duration,
    /// For a person: an address, a version, a number.
    pub detail: String,
}

/// Everything that a probe found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// `wss://host:port/path`
    pub target: String,
    /// Passed, and last the one that did not.
    pub steps: Vec<Step>,
    pub failed: Option<(Stage, Trouble)>,
    pub took: Duration,
    pub certificate: Option<Certificate>,
    /// `TLSv1.3`
    pub tls_version: Option<String>,
    pub room: Option<String>,
    /// `connected.session`, which the server's logs name too.
    pub session: Option<String>,
    /// What `connected.kept` says.
    pub kept: Option<String>,
    /// The token says that it is a probe's.
    pub is_probe: bool,
}

/// What the server showed, whether it was trusted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Names that it is for.
    pub names: Vec<String>,
    pub issuer: String,
    /// Unix seconds; of the chain's certificate that ends first.
    pub not_after: i64,
    /// Of the server's own.
    pub not_before: i64,
    /// The chain and the name were checked.
    pub verified: bool,
}

impl Certificate {
    /// Whole days until it ends; below zero once it has.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(86_400)
    }
}

impl Report {
    pub fn exit_code(&self) -> u8 {
        self.failed.as_ref().map_or(0, |(_, trouble)| trouble.kind.exit_code())
    }
}

/// Longest text of a server that is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// What a server said, made harmless for terminals, logs and lines.
pub fn plain(text: &str) -> String {
    let shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let shown = shown.trim();
    if text.chars().count() > SHOWN_CHARS_MAX {
        format!("{shown}…")
    } else {
        shown.to_owned()
    }
}
