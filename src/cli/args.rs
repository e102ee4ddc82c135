//! Every argument of every verb: one definition feeds the parser, `--help`, completions and manual pages.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::version;

/// Realtime rooms for any web application: HTTPS and wss on one port, JWT, history, presence, recovery.
#[derive(Debug, Parser)]
#[command(
    name = "conclave",
    version = version::short(),
    long_version = version::long(),
    arg_required_else_help = true,
    after_help = "Start here:\n  conclave dev                              a running server with a page, no configuration\n  conclave config init conclave.toml        a configuration for production\n  conclave check-config --config conclave.toml\n  conclave serve --config conclave.toml\n\nExit codes: 0 done, 1 failed, 64 bad arguments or configuration; conclave probe has its own."
)]
pub struct Arguments {
    #[command(flatten)]
    pub loudness: Loudness,
    #[command(subcommand)]
    pub verb: Verb,
}

/// How much is said.
#[derive(Debug, Clone, Copy, Args)]
pub struct Loudness {
    /// Say less; verbs that answer with one thing print only that
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 900)]
    pub quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 901)]
    pub verbose: u8,
}

impl Loudness {
    /// The log filter that this stands for, and the flag's name; none means: as configured.
    pub fn log_level(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self { quiet: true, .. } => Some(("warn", "--quiet")),
            Self { verbose: 0, .. } => None,
            Self { verbose: 1, .. } => Some(("conclave=debug,info", "--verbose")),
            Self { .. } => Some(("trace", "--verbose")),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the server
    Serve(Serve),
    /// Run a server for development: no configuration, loopback only
    Dev(Dev),
    /// Mint a token, or say why one is bad
    Token(Token),
    /// Make keys for the server API
    #[command(subcommand)]
    ApiKey(ApiKeyVerb),
    /// List every problem of a configuration
    CheckConfig(CheckConfig),
    /// Write a configuration to start from
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Ask a running node whether it is ready
    Healthcheck(Healthcheck),
    /// Make tokens count no longer, on all nodes
    Revoke(Revoke),
    /// End a user's connections, on all nodes
    Kick(Kick),
    /// Have a node send its clients elsewhere and end, or say what that would be like
    Drain(Drain),
    /// Ask a server what a client would: name, TLS, sign-in, a message there and back; or do so for Prometheus
    Probe(Box<Probe>),
    /// Measure a server, for capacity planning
    Bench(Bench),
    /// Print a shell completion script
    #[command(after_help = "Example:\n  conclave completions bash > /etc/bash_completion.d/conclave")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page per verb
    #[command(after_help = "Examples:\n  conclave man | man -l -\n  conclave man /usr/local/share/man/man1")]
    Man {
        /// Where to write all pages
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// `conclave serve`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave serve --config conclave.toml\n  conclave serve --config conclave.toml --listen 0.0.0.0:443 --log-format human\n\nFlags override the environment (CONCLAVE_SECTION__KEY), which overrides the file.\nSIGTERM drains and exits 0; a second signal exits at once. SIGHUP reloads the certificate."
)]
pub struct Serve {
    /// The configuration file, else $CONCLAVE_CONFIG; with neither, defaults and the environment
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// HTTPS and wss [server.listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Metrics and health, plain HTTP [server.admin_listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,
    /// A filter such as "info" or "conclave=debug,info" [log.level]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// "json" or "human" [log.format]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// `conclave dev`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave dev\n  conclave dev --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0    any free ports\n  conclave dev --origin http://localhost:5173                     for an application's own dev server\n\nThe certificate and the secret are generated once and kept in $CONCLAVE_STATE_DIR,\n$XDG_STATE_HOME/conclave or ~/.local/state/conclave. For development only."
)]
pub struct Dev {
    /// HTTPS and wss; 127.0.0.1 or [::1] only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Metrics and health, plain HTTP
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    pub admin_listen: SocketAddr,
    /// Display name in the printed token
    #[arg(long, default_value = "Dev")]
    pub name: String,
    /// Another origin whose pages may connect; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
}

/// `conclave token`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave token --config conclave.toml --sub u1 --name Ann --ttl 1h -q\n  conclave token --sub ana --room 'lobby' --room 'team-42/*=join,chat'    for conclave dev\n  conclave token --config conclave.toml --sub probe --probe --room lobby --ttl 90days -q > probe.jwt\n  conclave token --config conclave.toml --check - < token.txt\n\nThe token goes to stdout, everything else to stderr. Without --config the key is the one of conclave dev."
)]
pub struct Token {
    /// The configuration whose keys sign or check
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// User id
    #[arg(long, required_unless_present = "check")]
    pub sub: Option<String>,
    /// Display name
    #[arg(long)]
    pub name: Option<String>,
    /// How long it is good
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// Another claim, as JSON; a bare word is a string; may be repeated
    #[arg(long, value_name = "NAME=JSON")]
    pub claim: Vec<String>,
    /// What it allows where: verbs are join, chat, list, history or *; none means *; may be repeated
    #[arg(long, value_name = "PATTERN[=VERBS]")]
    pub room: Vec<String>,
    /// For conclave probe: nobody in a room notices it, no metric of clients counts it
    #[arg(long)]
    pub probe: bool,
    /// Sign with the key of this id; without it the first key that can sign
    #[arg(long)]
    pub kid: Option<String>,
    /// Say why this token is good or bad ("-" reads it from stdin); exit code 1 when it is bad
    #[arg(long, value_name = "TOKEN|-", conflicts_with_all = ["sub", "name", "claim", "room", "probe", "kid"])]
    pub check: Option<String>,
}

/// `conclave api-key`
#[derive(Debug, Subcommand)]
pub enum ApiKeyVerb {
    /// Make a key, and the entry of conclave.toml that lets it in
    #[command(
        after_help = "Examples:\n  conclave api-key new --name backend --scope publish --scope read\n  conclave api-key new --name backend --scope publish > backend.key 2>> conclave.toml\n  conclave api-key new --name bot --scope publish --room 'team/*' --expires 2027-01-31\n\nThe key goes to stdout and is kept nowhere; its entry, which has only its hash, goes to stderr."
    )]
    New(ApiKeyNew),
}

/// `conclave api-key new`
#[derive(Debug, Args)]
pub struct ApiKeyNew {
    /// Whose key it is, for the audit log
    #[arg(long)]
    pub name: String,
    /// What it may do: publish, message, read, kick, revoke, nodes, or * for all; may be repeated
    #[arg(long, required = true)]
    pub scope: Vec<String>,
    /// A room, or the beginning of rooms' names with a * after it; without it all; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub room: Vec<String>,
    /// How often it may ask; without it api.requests_per_second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests_per_second: Option<u32>,
    /// When it ends: a date, or a moment of RFC 3339; without it never
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
}

/// `conclave check-config`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave check-config --config conclave.toml\n  conclave check-config --config conclave.toml --print\n  conclave check-config --config conclave.toml --strict --grace-period 60s      in a pipeline\n\nErrors: the server would not start. Warnings: it starts, and something bad may come of it. Notes: worth knowing.\nExit code 64 when there is an error, with --strict also when there is a warning."
)]
pub struct CheckConfig {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show every value and where it came from; secrets are masked
    #[arg(long)]
    pub print: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// Fail for warnings too
    #[arg(long)]
    pub strict: bool,
    /// How long the process is given to stop: terminationGracePeriodSeconds, TimeoutStopSec, --stop-timeout; without it 30s, as Kubernetes has it
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub grace_period: Option<Duration>,
}

/// `conclave config`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Write a configuration for production
    #[command(
        after_help = "Examples:\n  conclave config init conclave.toml\n  conclave config init            to stdout"
    )]
    Init {
        /// The file to write; without it stdout
        #[arg(value_name = "FILE")]
        path: Option<PathBuf>,
        /// Replace a file that exists
        #[arg(long)]
        force: bool,
    },
    /// List the environment variable of every key
    Env,
}

/// `conclave healthcheck`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave healthcheck\n  conclave healthcheck --config /etc/conclave/conclave.toml -q\n  HEALTHCHECK CMD [\"conclave\", \"healthcheck\"]         in a Dockerfile\n\nExit code 0 when ready, 1 when not, within 3 seconds."
)]
pub struct Healthcheck {
    /// Take server.admin_listen from this file
    #[arg(short, long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// What to ask; http://127.0.0.1:9464/readyz when neither is given
    #[arg(long)]
    pub url: Option<String>,
}

/// `conclave revoke`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave revoke --config conclave.toml --user u1              every token that u1 has now\n  conclave revoke --config conclave.toml --user u1 --issued-before 2026-01-01T00:00:00Z\n  conclave revoke --config conclave.toml --token t-8f2c         the token with this jti\n\nConnections with such a token are closed at once with 1008 token_revoked, and new ones are refused.\nTokens without iat count as issued before. A session is one connection: its token stays good elsewhere.\nNeeds backplane.kind redis or nats. Doing it twice is harmless."
)]
pub struct Revoke {
    #[command(flatten)]
    pub whom: Whom,
    /// Tokens issued at or before this second: RFC 3339 or Unix seconds; without it now
    #[arg(long, value_name = "TIME", value_parser = unix_seconds, conflicts_with_all = ["session", "token"])]
    pub issued_before: Option<u64>,
    /// How long to remember it, at least as long as such a token lives; without it 30 days, or 20 years if auth.require_expiry is off
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub kept: Option<Duration>,
    /// The configuration of the nodes
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Whom a revocation is about: exactly one.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// User id, as in connected.user.id
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Session, as in connected.session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Token id: the jti claim, not the token
    #[arg(long, value_name = "JTI")]
    pub token: Option<String>,
}

/// `conclave kick`
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("kicked").required(true).args(["user", "session"]),
    after_help = "Examples:\n  conclave kick --config conclave.toml --user u1\n  conclave kick --config conclave.toml --user u1 --ban 1h\n  conclave kick --config conclave.toml --session s-9f0c…\n\nConnections are closed once with 1008 kicked; without --ban the same token may connect again.\nA ban ends by itself. Needs backplane.kind redis or nats."
)]
pub struct Kick {
    /// User id, as in connected.user.id
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Session, as in connected.session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Keep the user out for so long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "session")]
    pub ban: Option<Duration>,
    /// The configuration of the nodes
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `conclave drain`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave drain --config conclave.toml --dry-run      how long it takes, and how fast clients come back\n  conclave drain --config conclave.toml --wait         for a deploy script\n  conclave drain --dry-run --clients 50000 --nodes 3 --time 30s    for nodes that are not there\n\nThe node must have admin.token_file. It does what SIGTERM does: readiness fails, each client is told when to come\nback and closed, the process ends with 0. Nothing takes it back."
)]
pub struct Drain {
    /// The configuration of the node: its server.admin_listen and admin.token_file
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The admin listener, such as http://127.0.0.1:9464
    #[arg(long)]
    pub url: Option<String>,
    /// A file with a token of the node's admin.token_file, if --config does not name it
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Only say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Until the node has ended
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// The plan as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Predict for so many clients, without a node
    #[arg(long, value_name = "N", requires = "dry_run", conflicts_with_all = ["url", "token_file"])]
    pub clients: Option<u64>,
    /// Nodes of the cluster, the drained one included
    #[arg(long, value_name = "N", default_value_t = 1, requires = "clients", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub nodes: u32,
    /// Handshakes per second that each node takes; without it 1000
    #[arg(long, value_name = "PER_SECOND", requires = "clients", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Connections that each of the other nodes has room for; without it enough
    #[arg(long, value_name = "N", requires = "clients")]
    pub free: Option<u64>,
    /// Instead of drain.time
    #[arg(long, value_name = "DURATION", requires = "clients", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
    /// Instead of drain.grace
    #[arg(long, value_name = "DURATION", requires = "clients", value_parser = humantime::parse_duration)]
    pub grace: Option<Duration>,
}

/// `conclave probe`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  conclave probe wss://chat.example.com/ws --token-file probe.jwt --room lobby\n  conclave probe wss://node-1:8443/ws --via wss://node-2:8443/ws --token-file probe.jwt --json\n  conclave probe wss://chat.example.com/ws --token-file probe.jwt --nagios --warn 1s --crit 3s\n  conclave probe --listen :9115 --config probe.toml       for Prometheus: /probe?target=wss://…&module=…\n\nA token made with conclave token --probe is noticed by nobody in the room and counted in no metric of clients.\nWithout a token flag: $CONCLAVE_TOKEN, else the key of conclave dev for a server on this machine.\n\nExit codes: 0 passed, 1 the server answered wrongly, 2 bad arguments, 3 name or TCP, 4 TLS, 5 upgrade refused,\n6 token refused (1008), 7 nothing came in time. With --nagios: 0 ok, 1 warning, 2 critical, 3 unknown."
)]
#[expect(clippy::struct_excessive_bools, reason = "separate flags")]
pub struct Probe {
    /// The server, such as wss://chat.example.com/ws; with --listen those that may be asked for
    #[arg(value_name = "URL", required_unless_present = "listen")]
    pub target: Vec<String>,
    /// The token ("-" reads it from stdin); others on this machine see it in the list of processes: rather --token-file
    #[arg(long, value_name = "TOKEN|-", group = "identity")]
    pub token: Option<String>,
    /// File with the token, read anew for every probe
    #[arg(long, value_name = "FILE", group = "identity")]
    pub token_file: Option<PathBuf>,
    /// Mint a probe's token for each probe, with the key of this server configuration
    #[arg(long, value_name = "FILE", group = "identity")]
    pub sign_with: Option<PathBuf>,
    /// The room to join and speak in; without it one that the token allows
    #[arg(long, value_name = "ROOM")]
    pub room: Option<String>,
    /// Another node: a second connection waits there for the message
    #[arg(long, value_name = "URL")]
    pub via: Option<String>,
    /// Trust this certificate authority (PEM); without it the one of conclave dev or of the system
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Accept any certificate
    #[arg(long)]
    pub insecure: bool,
    /// For the whole probe
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Connect to this address for this name, whatever DNS says; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS")]
    pub resolve: Vec<String>,
    /// Say that a page of this origin connects
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Option<String>,
    /// Send the token as a cookie of this name, as browsers do; then --origin defaults to the server's own
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "conclave_token")]
    pub cookie: Option<String>,
    /// Print one JSON object
    #[arg(long, group = "output")]
    pub json: bool,
    /// Print Prometheus text, as for node_exporter's textfile collector
    #[arg(long, group = "output")]
    pub prometheus: bool,
    /// Print one line for Nagios and its kin, with their exit codes
    #[arg(long, group = "output")]
    pub nagios: bool,
    /// With --nagios: a warning from this time on
    #[arg(long, value_name = "DURATION", requires = "nagios", value_parser = humantime::parse_duration)]
    pub warn: Option<Duration>,
    /// With --nagios: critical from this time on
    #[arg(long, value_name = "DURATION", requires = "nagios", value_parser = humantime::parse_duration)]
    pub crit: Option<Duration>,
    /// Serve /probe?target=URL&module=NAME to Prometheus; ":9115" is every address
    #[arg(long, value_name = "[ADDRESS]:PORT", conflicts_with = "output")]
    pub listen: Option<String>,
    /// With --listen: what may be probed, and how
    #[arg(short, long, value_name = "FILE", requires = "listen", conflicts_with_all = ["identity", "target"])]
    pub config: Option<PathBuf>,
}

/// `conclave bench`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples, against a running conclave dev:\n  conclave bench idle --connections 5000 --pid $(pidof conclave)\n  conclave bench broadcast --connections 1000 --rooms 10 --publishers 10 --rate 5\nAgainst another server:\n  conclave bench broadcast --config conclave.toml --ca certs/ca.crt --url wss://127.0.0.1:8443/ws --json"
)]
pub struct Bench {
    #[command(subcommand)]
    pub test: BenchTest,
}

#[derive(Debug, Subcommand)]
pub enum BenchTest {
    /// Open connections and hold them: handshakes/s, CPU per handshake, memory per connection
    Idle(Load),
    /// Publish to rooms: deliveries/s, delivery ratio, latency, CPU per delivery
    Broadcast {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        publishing: Publishing,
    },
    /// Hold, publish and come and go for long: growth of memory, unexpected closes, holes in what members see
    Soak {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        publishing: Publishing,
        /// Connections per second, of those that do not publish, that leave and come back
        #[arg(long, value_name = "PER_SECOND", default_value_t = 10.0, value_parser = rate)]
        churn: f64,
    },
    /// Ping-pong over /echo (echo.enabled): messages/s, round trip, CPU per message
    Echo {
        #[command(flatten)]
        load: Load,
        /// Bytes of a message
        #[arg(long, value_name = "BYTES", default_value_t = 128)]
        size: usize,
    },
}

/// What every bench takes.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// The server
    #[arg(long, default_value = "wss://127.0.0.1:8443/ws")]
    pub url: String,
    /// One token for all connections
    #[arg(long, conflicts_with = "config")]
    pub token: Option<String>,
    /// Mint one token per connection with this configuration's key; without it and --token that of conclave dev
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How many connections
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// How many rooms; connection i joins room i modulo N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: u32,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Handshakes at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// Client threads; without it half the cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// Read CPU and memory of this process, the server on this machine
    #[arg(long, value_name = "SERVER_PID")]
    pub pid: Option<u32>,
    /// Trust this certificate authority (PEM); without it the one of conclave dev or of the system
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Accept any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Do it to a server that is not on this machine
    #[arg(long)]
    pub yes: bool,
}

/// What `bench broadcast` publishes.
#[derive(Debug, Clone, Args)]
pub struct Publishing {
    /// How many of the connections publish
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: u32,
    /// Messages per second of each publisher
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
    /// Bytes of a message's content
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// As fast as it goes instead of --rate
    #[arg(long)]
    pub flood: bool,
    /// With --flood: messages of a publisher that are under way at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub window: u32,
}

/// The last second of the year 9999, as for the claims of a token.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

fn unix_seconds(text: &str) -> Result<u64, String> {
    let seconds = match text.parse() {
        Ok(seconds) => Some(seconds),
        Err(_) => humantime::parse_rfc3339_weak(text)
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|since| since.as_secs()),
    };
    seconds
        .filter(|seconds| *seconds <= UNIX_SECONDS_MAX)
        .ok_or_else(|| "expected a time like 2026-01-01T00:00:00Z, or Unix seconds".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text
        .parse()
        .map_err(|_| "expected a number of messages per second".to_owned())?;
    if rate.is_finite() && (0.001..=100_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("expected 0.001 to 100000".to_owned())
    }
}
