//! What is allowed and still a bad idea: each with what may happen and what to do. Nothing here keeps the server from
//! starting; everything depends on the configuration and on [`Facts`] alone.

mod secrets;

use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;

use crate::config::facts::Facts;
use crate::config::problem::Problem;
use crate::config::{Backplane, BackplaneKind, Config, Kept, KeySource};

/// How long balancers and proxies let a connection be silent unless they are told otherwise.
const IDLE_TIMEOUTS: [(&str, Duration); 7] = [
    ("HAProxy as Debian configures it", Duration::from_secs(50)),
    ("Heroku", Duration::from_secs(55)),
    ("AWS ALB", Duration::from_secs(60)),
    ("nginx (proxy_read_timeout)", Duration::from_secs(60)),
    ("Cloudflare", Duration::from_secs(100)),
    ("Azure Load Balancer", Duration::from_secs(240)),
    ("AWS NLB", Duration::from_secs(350)),
];
/// A ping may be so late, by the sweep and by its way.
const PING_SLACK: Duration = Duration::from_secs(5);

/// What Kubernetes gives between SIGTERM and SIGKILL unless told otherwise.
const GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(30);
/// After the last client: the backplane is told, spans leave.
const AFTER_DRAIN: Duration = Duration::from_secs(4);

/// A sign-in waits 14 s for a key that is not known yet, the reading itself included.
const JWKS_REFRESH_LONG: Duration = Duration::from_secs(13);

/// Descriptors besides sockets, as `serve` reserves them.
const DESCRIPTORS_RESERVED: u64 = 128;
/// With fewer possible connections the limit on open files was probably forgotten.
const CONNECTIONS_FEW: u64 = 4_000;

/// Memory of a connection that is idle, its kernel buffers left out (README, Performance).
const CONNECTION_BYTES: u64 = 10 * 1024;
/// Share of the memory that budgets may take; the rest is for code, rooms and what the allocator keeps.
const BUDGET_PERCENT_MAX: u64 = 80;

/// Warnings and notes, never errors.
pub fn check(config: &Config, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(heartbeat(config.heartbeat.interval));
    problems.extend(stopping(config, facts.grace_period));
    problems.extend(tokens(config));
    problems.extend(secrets::check(config));
    problems.extend(facts.open_files_max.and_then(|most| open_files(config, most)));
    problems.extend(facts.memory_bytes_max.and_then(|most| memory(config, most)));
    problems.extend(reachable(config));
    problems.extend(backplane(&config.backplane));
    problems
}

fn heartbeat(interval: Duration) -> Option<Problem> {
    let cut: Vec<String> = (IDLE_TIMEOUTS.iter())
        .filter(|(_, idle)| interval + PING_SLACK > *idle)
        .map(|(name, idle)| format!("{name} {} s", idle.as_secs()))
        .collect();
    (!cut.is_empty()).then(|| {
        let what = format!(
            "a quiet connection is silent for up to {} s, and these cut it sooner: {}",
            interval.as_secs(),
            cut.join(", ")
        );
        let remedy =
            "30s passes them all; with a longer one raise the idle timeout of whatever stands before the server";
        Problem::warning("heartbeat.interval", what, remedy)
    })
}

fn stopping(config: &Config, grace_period: Option<Duration>) -> Option<Problem> {
    let needed = config.drain.grace + config.drain.time + AFTER_DRAIN;
    let (given, whose) = match grace_period {
        Some(given) => (given, "--grace-period"),
        None => (GRACE_PERIOD_DEFAULT, "what Kubernetes gives by default"),
    };
    (needed > given).then(|| {
        let what = format!(
            "drain.grace and drain.time take {} s with what follows them, more than the {} s of {whose}: clients that are left \
             are cut without being told when to come back",
            needed.as_secs(),
            given.as_secs()
        );
        let remedy = format!(
            "lower drain.time, or raise terminationGracePeriodSeconds, TimeoutStopSec or --stop-timeout to {} and pass it \
             here as --grace-period {}s",
            needed.as_secs(),
            needed.as_secs()
        );
        Problem::warning("drain.time", what, remedy)
    })
}

fn tokens(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, key) in config
        .auth
        .keys
        .iter()
        .enumerate()
        .filter(|(_, key)| key.audience.is_empty())
    {
        let what = match key.source {
            KeySource::Secret(_) | KeySource::SecretFile(_) => {
                "not set: whatever else is signed with this secret and has a \"sub\" opens a socket too"
            }
            KeySource::PublicKeyFile(_) | KeySource::JwksFile(_) | KeySource::JwksUrl(_) => {
                "not set: every token of this issuer that names no audience opens a socket, also one made for another service"
            }
        };
        let remedy = "put an \"aud\" into the tokens for this server, such as \"conclave\", and name it here";
        problems.push(Problem::warning(format!("auth.keys[{index}].audience"), what, remedy));
    }
    problems.extend(rare_reading(config));
    if !config.auth.require_expiry {
        let what = "a token without \"exp\" is good for ever: one that leaks can only be revoked by name";
        let remedy = "let tokens end within hours, and leave this out; clients renew theirs while connected";
        problems.push(Problem::warning("auth.require_expiry", what, remedy));
    }
    problems
}

/// Longer than a sign-in waits for a key.
fn rare_reading(config: &Config) -> Option<Problem> {
    let by_url = config.auth.keys.iter().find_map(|key| match &key.source {
        KeySource::JwksUrl(url) => Some(url),
        _ => None,
    })?;
    (by_url.refresh > JWKS_REFRESH_LONG).then(|| {
        let what = "longer than a sign-in waits: after a change of keys that the issuer did not announce so long before, good \
                    tokens are refused";
        Problem::warning("auth.jwks_refresh", what, "leave it at 10s; an unchanged set costs a 304")
    })
}

fn open_files(config: &Config, most: u64) -> Option<Problem> {
    let possible = most.saturating_sub(DESCRIPTORS_RESERVED);
    let wanted = config.limits.connections as u64;
    let remedy = "raise LimitNOFILE= of the unit, --ulimit nofile= of the container, or \"ulimit -n\"";
    if wanted > possible {
        let what = format!(
            "{wanted} connections need more files than the {most} that a process may open here: the server would not start"
        );
        let remedy = format!("{remedy}; or lower it to {possible}");
        return Some(Problem::warning("limits.connections", what, remedy));
    }
    (wanted == 0 && possible < CONNECTIONS_FEW).then(|| {
        let what = format!("derived from the {most} files that a process may open here: {possible} connections");
        Problem::warning("limits.connections", what, remedy)
    })
}

fn memory(config: &Config, most: u64) -> Option<Problem> {
    let mut budgets = vec![
        ("limits.node_outbox_bytes", config.limits.node_outbox_bytes as u64),
        ("limits.node_inbound_bytes", config.limits.node_inbound_bytes as u64),
    ];
    if config.history.messages > 0 {
        budgets.push(("history.node_bytes", config.history.node_bytes as u64));
    }
    if config.backplane.kind != BackplaneKind::Memory {
        budgets.push(("backplane.node_queue_bytes", config.backplane.node_queue_bytes as u64));
    }
    let connections = (config.limits.connections as u64).saturating_mul(CONNECTION_BYTES);
    if connections > 0 {
        budgets.push(("limits.connections", connections));
    }
    let sum = budgets.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if sum <= most / 100 * BUDGET_PERCENT_MAX {
        return None;
    }
    let parts: Vec<String> = (budgets.iter())
        .map(|(name, bytes)| format!("{name} {}", ByteSize(*bytes)))
        .collect();
    let what = format!(
        "what may fill up comes to {}, more than {BUDGET_PERCENT_MAX} % of the {} that there are here: under load the system \
         would kill the process ({}; an idle connection counts as {})",
        ByteSize(sum),
        ByteSize(most),
        parts.join(", "),
        ByteSize(CONNECTION_BYTES)
    );
    let (largest, _) = budgets.iter().max_by_key(|(_, bytes)| *bytes).copied()?;
    Some(Problem::warning(
        largest,
        what,
        "lower the largest of them, or give it more memory",
    ))
}

fn reachable(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.server.page {
        let what = "the chat room for trials is served to everybody who can reach the server";
        problems.push(Problem::warning(
            "server.page",
            what,
            "leave it out in production; /conclave.js is always there",
        ));
    }
    if config.echo.enabled {
        let what =
            "/echo is served to whoever has a token: it sends back messages much longer than limits.message_bytes";
        problems.push(Problem::warning("echo.enabled", what, "leave it out in production"));
    }
    if config.limits.connections_per_address == 0 {
        let what = "no limit: one address can take every connection there is";
        problems.push(Problem::warning(
            "limits.connections_per_address",
            what,
            "set it above what your largest office or carrier needs; with a balancer in front set server.proxy_from too",
        ));
    }
    let is_only_here = |names: &[String]| !names.is_empty() && names.iter().all(|name| is_this_machine(name));
    let is_file = !config.tls.certificate.as_os_str().is_empty();
    if is_file
        && !config.server.listen.is_local()
        && super::tls::names_in(&config.tls.certificate).is_some_and(|names| is_only_here(&names))
    {
        let what = "the certificate is for this machine only (localhost), but others can reach server.listen";
        problems.push(Problem::warning(
            "tls.certificate",
            what,
            "get one for the name that clients connect to; [acme] can do that",
        ));
    }
    problems
}

fn backplane(backplane: &Backplane) -> Vec<Problem> {
    if backplane.kind == BackplaneKind::Memory {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let is_remote = backplane.url.hosts.iter().any(|host| !is_this_machine(&host.name));
    let kind = backplane.kind.as_str();
    if is_remote && !backplane.url.tls {
        let what = format!(
            "{kind} on another machine without TLS: messages, names and the password cross the network in the clear"
        );
        let scheme = if backplane.kind == BackplaneKind::Nats {
            "tls://"
        } else {
            "rediss://"
        };
        let remedy = format!("use {scheme} with backplane.ca_file, unless the network itself encrypts");
        problems.push(Problem::warning("backplane.url", what, remedy));
    }
    if is_remote && backplane.url.password.is_none() {
        let what =
            format!("{kind} on another machine without a password: whoever reaches it reads and writes every room");
        problems.push(Problem::warning(
            "backplane.url",
            what,
            "give it one, and put the whole URL into backplane.url_file",
        ));
    }
    if backplane.kept == Kept::Async {
        let what = "\"async\": a crash or failover of the backplane may lose the last moments of a room; clients are told by \"reset\"";
        let remedy =
            "in order for most; if an ok must survive it use \"disk\" or \"replica\", with the backplane set up for it";
        problems.push(Problem::note("backplane.kept", what, remedy));
    }
    problems
}

fn is_this_machine(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
