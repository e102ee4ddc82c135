//! What the operator decided, checked: parsed once, reported whole, never read again from outside.

mod api;
mod assemble;
mod check;
pub mod classes;
mod document;
mod environment;
mod facts;
mod files;
mod kind;
mod listen;
mod load;
mod print;
mod problem;
mod read;
mod schema;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use crate::backplane::url::BackplaneUrl;
use crate::outbound::Target;

pub use api::{Api, ApiKey, api_key_problems};
pub use check::check;
pub use facts::Facts;
pub use listen::{Listen, Networks};
pub use load::{Effective, Loaded, Sources, default_config, load, load_with};
pub use print::{PRODUCTION_TOML, effective_table, env_table, table_markdown};
pub use problem::{At, Problem, Problems, Severity};

/// Everything the server was told. Built once by `load`; nothing reads the environment after it.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub tls: Tls,
    pub acme: Acme,
    pub origin: Origin,
    pub auth: Auth,
    pub tickets: Tickets,
    pub session: Session,
    pub outbound: Outbound,
    pub heartbeat: Heartbeat,
    pub limits: Limits,
    pub history: History,
    pub room: Room,
    /// In the order of the file.
    pub rooms: Vec<RoomClass>,
    pub backplane: Backplane,
    pub echo: Echo,
    pub admin: Admin,
    pub api: Api,
    pub hooks: Hooks,
    pub drain: Drain,
    pub log: Log,
    pub traces: Traces,
}

#[derive(Debug, Clone)]
pub struct Server {
    /// Among other nodes. Empty until `serve` knows its port, if none was set.
    pub name: String,
    /// HTTPS and wss.
    pub listen: Listen,
    /// Who may use it, where that is a unix socket: the mode of its file.
    pub listen_mode: u32,
    /// Metrics and health, plain HTTP, on a thread of its own.
    pub admin_listen: SocketAddr,
    /// Networks whose connections begin with a PROXY header; nobody else's may.
    pub proxy_from: Networks,
    /// Proxies whose `X-Forwarded-For` or `Forwarded` says whose request it is.
    pub forwarded_from: Networks,
    pub runtime: RuntimeKind,
    /// Threads that serve connections; 0 means one per core the process may use.
    pub threads: usize,
    /// Serve the chat room at `/`; the client module `/conclave.js` is always there.
    pub page: bool,
    /// From accept to the first byte of the request (TLS handshake included).
    pub handshake_timeout: Duration,
    /// From the first byte of the request to the end of its head.
    pub header_timeout: Duration,
    /// Longest request head.
    pub header_bytes: usize,
    /// An HTTP connection that serves no request for this long is closed.
    pub http_idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// One single-threaded runtime, listener and flusher per core ("per-core").
    PerCore,
    /// One multi-threaded runtime ("shared").
    Shared,
}

#[derive(Debug, Clone)]
pub struct Tls {
    /// Whether it is spoken here.
    pub mode: TlsMode,
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// How often the files are compared even if no change was announced.
    pub reload_poll: Duration,
    pub client_auth: ClientAuth,
    /// PEM authorities of clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    /// PEM revocation lists of those.
    pub client_crl_file: Option<PathBuf>,
}

/// Whether clients show a certificate of their own, besides their token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    Off,
    /// A bad one is refused, none is not.
    Optional,
    /// Without a good one there is no handshake.
    Required,
}

/// Certificates from an authority that is asked for them.
#[derive(Debug, Clone)]
pub struct Acme {
    /// Empty: `tls.certificate` is used instead.
    pub domains: Vec<String>,
    /// `mailto:` URLs.
    pub contact: Vec<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// Account key, certificate, challenges; all nodes of the same domains share it.
    pub cache_dir: PathBuf,
    /// PEM roots of the authority's own server; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Pause after the first failed order.
    pub retry: Duration,
}

impl Acme {
    /// Whether certificates are asked for.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.domains.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    On,
    /// A proxy on this machine does it ("off").
    Off,
}

#[derive(Debug, Clone)]
pub struct Origin {
    /// Exact origins, `https://*.example.com` for one label, or `*`.
    pub allow: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Auth {
    pub keys: Vec<Key>,
    /// Name of the cookie that may carry the token.
    pub cookie: String,
    /// Clock skew allowed on `exp` and `nbf`.
    pub leeway: Duration,
    /// Refuse tokens without `exp`.
    pub require_expiry: bool,
    /// Refused tokens per second and address before the answer is 429 instead of an upgrade.
    pub refusals_per_second: u32,
    pub refusals_burst: u32,
    /// Sign-ins that may wait for keys by URL.
    pub jwks_waiting: usize,
    /// Unknown key ids for which one address may wait at the same time.
    pub jwks_kids_per_address: usize,
    /// Whether a JWT may come in the query.
    pub query_token: bool,
    pub forward: Forward,
}

/// Sessions of the application.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Who is asked; none: nobody.
    pub url: Option<String>,
    /// PEM roots of its server; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Cookies that are passed on; `*`: all but our own.
    pub cookies: Vec<String>,
    /// Headers that are passed on.
    pub headers: Vec<String>,
    /// Of one question.
    pub timeout: Duration,
    /// How long a good answer counts again; 0: not at all.
    pub cache: Duration,
    pub cache_entries: usize,
    /// Questions under way.
    pub in_flight: usize,
    /// In a row, after which nobody is asked for `pause`.
    pub failures: u32,
    pub pause: Duration,
    /// Of what an answer says.
    pub lifetime_max: Duration,
    pub user_prefix: String,
}

/// Single-use tickets.
#[derive(Debug, Clone)]
pub struct Tickets {
    /// `POST /ticket`
    pub enabled: bool,
    pub lifetime: Duration,
    /// Per user.
    pub per_minute: u32,
    /// Per address.
    pub address_per_minute: u32,
    /// Given out by this node within one lifetime.
    pub outstanding: usize,
}

/// One `[[auth.keys]]` entry, not yet loaded.
#[derive(Debug, Clone)]
pub struct Key {
    /// "HS256" … "EdDSA". Empty only with `jwks_file` and `jwks_url`, whose keys name their own.
    pub algorithm: String,
    pub source: KeySource,
    pub kid: Option<String>,
    pub issuer: Option<String>,
    pub audience: Vec<String>,
    /// Put before every user id of this key's tokens.
    pub user_prefix: String,
    /// `conclave.toml:12`, for messages.
    pub set_in: String,
}

#[derive(Debug, Clone)]
pub enum KeySource {
    /// Bytes of the file, one trailing newline removed.
    SecretFile(PathBuf),
    Secret(SecretString),
    PublicKeyFile(PathBuf),
    JwksFile(PathBuf),
    JwksUrl(Box<JwksUrl>),
}

/// Keys that an issuer serves.
#[derive(Debug, Clone)]
pub struct JwksUrl {
    pub target: Target,
    /// PEM authorities of its certificate; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// What its keys may be used with; empty: RS256 and what else a key itself names.
    pub algorithms: Vec<String>,
    pub refresh: Duration,
    /// Over one reading.
    pub timeout: Duration,
    /// First pause after a failure.
    pub minimum_gap: Duration,
    /// Older keys vouch for nobody; zero: they always do.
    pub maximum_age: Duration,
    /// A key that has gone vouches so long.
    pub grace: Duration,
}

#[derive(Debug, Clone)]
pub struct Session {
    /// `POST /session` and `DELETE /session`.
    pub enabled: bool,
    /// The key that signs guests' tokens; a random one per start when none is set.
    pub secret: Option<SecretString>,
    pub ttl: Duration,
    /// Sign-ins per minute and address.
    pub per_minute: u32,
}

/// What holds for everything that we call.
#[derive(Debug, Clone, Default)]
pub struct Outbound {
    /// Allowed whatever is there.
    pub networks: Vec<IpNet>,
}

#[derive(Debug, Clone)]
pub struct Heartbeat {
    pub interval: Duration,
}

/// 0 means no limit, except where a field says otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets and HTTP connections on this node; 0 in the file means: derived from the file limit.
    pub connections: usize,
    pub connections_per_address: usize,
    /// Over all nodes.
    pub connections_per_user: u32,
    pub handshakes_in_flight: usize,
    /// Share of each core that handshakes may take while others wait for them.
    pub handshake_cpu_share: f64,
    /// How long a handshake may wait for its turn.
    pub handshake_wait: Duration,
    /// Per address (IPv6: per /64).
    pub handshakes_per_address_per_second: u32,
    /// Share of `connections` that only clients get who return.
    pub returning_share: f64,
    /// Sockets that are told at once that they may not stay.
    pub turn_aways: usize,
    /// Clients of whom it is not known yet who they are, because somebody else is asked.
    pub admissions_waiting: usize,
    /// How long that may take.
    pub admission_time: Duration,
    pub message_bytes: usize,
    /// Fragments of one message.
    pub fragments: usize,
    /// Per connection.
    pub messages_per_second: u32,
    /// Per connection; how many may come at once.
    pub messages_burst: u32,
    /// Per connection.
    pub bytes_per_second: u64,
    /// Over all connections of a user on this node.
    pub user_messages_per_second: u32,
    /// Over all connections of an address (IPv6: of a /64).
    pub address_messages_per_second: u32,
    pub user_bytes_per_second: u64,
    pub address_bytes_per_second: u64,
    /// Of chats in one room on this node.
    pub room_messages_per_second: u32,
    pub room_bytes_per_second: u64,
    /// Over all connections of this node.
    pub node_messages_per_second: u32,
    pub node_bytes_per_second: u64,
    /// Calls of one connection under way at the same time.
    pub calls_per_connection: usize,
    /// Rooms one connection may be in.
    pub rooms_per_connection: usize,
    /// Connections in one room on this node.
    pub room_members: usize,
    /// Rooms on this node.
    pub rooms: usize,
    pub outbox_bytes: usize,
    pub outbox_frames: usize,
    pub outbox_age: Duration,
    /// Sum over all outboxes of this node; the largest go first.
    pub node_outbox_bytes: usize,
    /// Sum over all messages of this node that are not whole; the largest go first.
    pub node_inbound_bytes: usize,
    /// SO_SNDBUF of a client socket.
    pub send_buffer: usize,
    /// TCP_NOTSENT_LOWAT of a client socket.
    pub unsent_low_water: usize,
}

#[derive(Debug, Clone)]
pub struct History {
    /// Messages kept per room.
    pub messages: usize,
    /// How long a message is kept.
    pub age: Duration,
    /// Bytes kept per room.
    pub bytes: usize,
    /// Bytes kept of all rooms of this node together.
    pub node_bytes: usize,
}

/// What holds in every room whose class does not say otherwise.
#[derive(Debug, Clone)]
pub struct Room {
    /// Users named in `list`; above it a room gets `count` instead of `join` and `left`.
    pub users_shown: usize,
    /// How long a `key` is remembered.
    pub key_window: Duration,
    /// How long a flush may wait for more; 0 sends at once.
    pub flush_window: Duration,
}

/// One `[[rooms]]` entry: the rooms of a pattern. What is none is as in all rooms; [`classes::Classes`] puts the two
/// together.
#[derive(Debug, Clone)]
pub struct RoomClass {
    /// A room's name, or the beginning of many and a `*`.
    pub pattern: String,
    pub join: Who,
    pub chat: Who,
    pub list: Who,
    pub history: Who,
    /// Whether guests may enter.
    pub guests: bool,
    pub history_messages: Option<usize>,
    pub history_age: Option<Duration>,
    pub history_bytes: Option<usize>,
    pub key_window: Option<Duration>,
    pub flush_window: Option<Duration>,
    pub users_shown: Option<usize>,
    /// Connections on this node; 0 means no limit.
    pub members: Option<usize>,
    /// Chats on this node; 0 means no limit.
    pub messages_per_second: Option<u32>,
    /// Of their content; 0 means no limit.
    pub bytes_per_second: Option<u64>,
    /// `conclave.toml:12`, for messages.
    pub set_in: String,
}

impl RoomClass {
    /// A class that differs in nothing.
    #[must_use]
    pub fn of(pattern: &str) -> Self {
        Self {
            pattern: pattern.to_owned(),
            join: Who::All,
            chat: Who::All,
            list: Who::All,
            history: Who::All,
            guests: true,
            history_messages: None,
            history_age: None,
            history_bytes: None,
            key_window: None,
            flush_window: None,
            users_shown: None,
            members: None,
            messages_per_second: None,
            bytes_per_second: None,
            set_in: String::new(),
        }
    }
}

/// Who may do something in the rooms of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Everybody whose token does not say otherwise.
    All,
    /// Only whose token says so.
    Granted,
    /// Nobody, whatever their token says.
    None,
}

/// What carries rooms between nodes.
#[derive(Debug, Clone)]
pub struct Backplane {
    pub kind: BackplaneKind,
    /// From `url` or `url_file`, else on this machine; nobody looks at it with the memory backplane.
    pub url: BackplaneUrl,
    /// `connected.kept`; always `Memory` with the memory backplane, and never with another.
    pub kept: Kept,
    /// What the names of everything stored begin with.
    pub prefix: String,
    /// Acknowledgements of replicas before an `ok`, with `Kept::Replica`.
    pub replicas: u32,
    /// How long those are waited for.
    pub wait_timeout: Duration,
    /// PEM roots for TLS; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// From `sentinel_password_file`.
    pub sentinel_password: Option<SecretString>,
    /// From dialling to a link that can be used.
    pub connect_timeout: Duration,
    /// How long an answer is waited for.
    pub call_timeout: Duration,
    /// How long a chat is tried.
    pub publish_timeout: Duration,
    /// A user leaves so long after the last connection was closed; between nodes only.
    pub leave_grace: Duration,
    /// How often each attached room is compared.
    pub audit_interval: Duration,
    /// Users of a node that is not heard of for this long leave; renewed five times in it.
    pub lease: Duration,
    /// After so long without word of revocations `on_stale` decides.
    pub max_staleness: Duration,
    pub on_stale: OnStale,
    /// Not ready while commands fail too.
    pub unready_when_away: bool,
    /// Chats of one room that may wait for the backplane.
    pub room_queue_messages: usize,
    /// Bytes of those.
    pub room_queue_bytes: usize,
    /// Bytes that may wait for the backplane, of all rooms.
    pub node_queue_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackplaneKind {
    /// One node.
    Memory,
    /// Redis or Valkey: one server, Sentinel or Cluster.
    Redis,
    /// NATS JetStream.
    Nats,
}

impl BackplaneKind {
    /// As in the configuration, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }
}

/// What an `ok` is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing beyond the process.
    Memory,
    /// Ordinary restarts; a crash or failover may lose a tail, told by `reset`.
    Async,
    /// Loss of power, with an honest disk.
    Disk,
    /// One failover.
    Replica,
}

impl Kept {
    /// As `connected.kept` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Async => "async",
            Self::Disk => "disk",
            Self::Replica => "replica",
        }
    }
}

/// What becomes of new sign-ins while revocations have not been heard of for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStale {
    /// 1013.
    Refuse,
    /// They are let in.
    Pass,
}

#[derive(Debug, Clone)]
pub struct Echo {
    pub enabled: bool,
    pub message_bytes: usize,
    pub fragments: usize,
}

/// The operator's page and its API, on `server.admin_listen`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Who may use them; nobody: there are none, only metrics and health.
    pub tokens: Vec<AdminToken>,
    /// Names the listener may be called by, lower case, besides those of this machine and its own address.
    pub hosts: Vec<String>,
    /// How long a browser stays signed in.
    pub session_ttl: Duration,
    /// Taps at the same time.
    pub taps: usize,
    /// Lines per second and tap.
    pub tap_lines_per_second: u32,
    /// After so long a tap ends.
    pub tap_time: Duration,
    /// Whether a tap shows what was said.
    pub tap_content: bool,
}

/// One line of `admin.token_file`.
#[derive(Debug, Clone)]
pub struct AdminToken {
    /// For the audit log.
    pub name: String,
    pub secret: SecretString,
}

/// What is asked of the application and told to it.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Signs; there is one whenever there is a hook.
    pub secret: Option<SecretString>,
    /// Signs too, while receivers change over.
    pub previous_secret: Option<SecretString>,
    /// PEM roots of the hooks' servers; none: the system's.
    pub ca_file: Option<PathBuf>,
    pub ask: Vec<AskHook>,
    pub tell: Vec<TellHook>,
}

impl Hooks {
    /// Whether anybody is asked or told.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.ask.is_empty() || !self.tell.is_empty()
    }
}

/// One `[[hooks.ask]]`.
#[derive(Debug, Clone)]
pub struct AskHook {
    /// Label of its metrics; no two hooks share one.
    pub name: String,
    pub url: String,
    /// Words of [`crate::hooks::Event`], each once.
    pub events: Vec<String>,
    /// Patterns of rooms.
    pub rooms: Vec<String>,
    /// Patterns of names of calls.
    pub calls: Vec<String>,
    pub timeout: Duration,
    pub when_down: WhenDown,
    pub in_flight: usize,
    /// Failures in a row that open the circuit; 0: it never opens.
    pub circuit_failures: u32,
    pub circuit_pause: Duration,
    pub answer_bytes: usize,
}

/// What holds when a hook that is to be asked gives no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    Deny,
    Allow,
}

/// One `[[hooks.tell]]`.
#[derive(Debug, Clone)]
pub struct TellHook {
    /// Label of its metrics; no two hooks share one.
    pub name: String,
    pub url: String,
    /// Words of [`crate::hooks::Event`], each once.
    pub events: Vec<String>,
    /// Patterns of rooms.
    pub rooms: Vec<String>,
    pub batch_events: usize,
    pub batch_wait: Duration,
    pub timeout: Duration,
    /// Longest pause between two tries.
    pub retry_max: Duration,
    /// Events that may wait.
    pub queue_events: usize,
    /// Bytes of them.
    pub queue_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Drain {
    /// From failing readiness to closing the listeners.
    pub grace: Duration,
    /// Over which clients are told to come back, and closed.
    pub time: Duration,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// A tracing filter such as `info` or `conclave=debug,info`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Human,
}

#[derive(Debug, Clone)]
pub struct Traces {
    /// OTLP over HTTP, e.g. `http://127.0.0.1:4318`; none means no traces.
    pub endpoint: Option<String>,
    /// Share of sessions and publishes that are traced when the caller did not decide, 0 to 1.
    pub sample_ratio: f64,
    /// Extra headers for the collector; may hold a secret.
    pub headers: Vec<(String, SecretString)>,
}

/// The configuration, shared by every part.
pub type Shared = Arc<Config>;
