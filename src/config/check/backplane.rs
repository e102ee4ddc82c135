//! The backplane: the URL fits the kind, `kept` is what the kind can do, times and bounds fit each other.

use super::acme::authorities;
use crate::backplane::url::{Engine, Form};
use crate::config::problem::Problem;
use crate::config::{Backplane, BackplaneKind, Config, Kept};
use crate::limits::ENVELOPE_BYTES_MAX;

/// Longest prefix: it is in every key that is stored.
const PREFIX_BYTES_MAX: usize = 32;

/// A renewal that is answered late is tried again before the lease ends: so many calls fit into one lease.
const CALLS_PER_LEASE: u32 = 4;

/// Checks `[backplane]`, and what it means for others. With the memory backplane most of it is not looked at.
pub fn check(config: &Config) -> Vec<Problem> {
    let backplane = &config.backplane;
    let mut problems = Vec::from_iter(prefix(backplane));
    if backplane.kind == BackplaneKind::Memory {
        return problems;
    }
    problems.extend(queues(config));
    problems.extend(scheme(backplane));
    problems.extend(kept(backplane));
    problems.extend(times(config));
    problems.extend(ca_file(backplane));
    if backplane.sentinel_password.is_some() && !matches!(backplane.url.form, Form::Sentinel { .. }) {
        problems.push(Problem::warning(
            "backplane.sentinel_password_file",
            "backplane.url names no sentinels: nobody is told this password",
            "leave it out, or write the URL as redis+sentinel://host,host/mymaster",
        ));
    }
    problems
}

/// Its characters are those that neither Redis' hash tags and patterns nor NATS' subjects give a meaning to.
fn prefix(backplane: &Backplane) -> Option<Problem> {
    let is_nats = backplane.kind == BackplaneKind::Nats;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && !is_nats);
    let is_short = (1..=PREFIX_BYTES_MAX).contains(&backplane.prefix.len());
    if is_short && backplane.prefix.bytes().all(is_good) {
        return None;
    }
    let what = if is_nats {
        "not a word that the names of streams can begin with"
    } else {
        "not a word that names can begin with"
    };
    let dot = if is_nats { "" } else { ", \".\"" };
    let remedy = format!("use 1 to {PREFIX_BYTES_MAX} letters, digits{dot}, \"_\" and \"-\", such as conclave-staging");
    Some(Problem::error("backplane.prefix", what, remedy))
}

/// The URL is not quoted.
fn scheme(backplane: &Backplane) -> Option<Problem> {
    let (engine, schemes) = match backplane.kind {
        BackplaneKind::Memory => return None,
        BackplaneKind::Redis => (
            Engine::Redis,
            "redis://, rediss://, redis+sentinel:// or redis+cluster://",
        ),
        BackplaneKind::Nats => (Engine::Nats, "nats:// or tls://"),
    };
    (backplane.url.engine != engine).then(|| {
        let what = format!("not a URL of backplane.kind, \"{}\"", backplane.kind.as_str());
        Problem::error("backplane.url", what, format!("begin with {schemes}"))
    })
}

fn kept(backplane: &Backplane) -> Option<Problem> {
    match (backplane.kind, backplane.kept) {
        (BackplaneKind::Nats, Kept::Replica) => Some(Problem::error(
            "backplane.kept",
            "JetStream does not say that a replica has a message on its disk",
            "use \"async\", or \"disk\" if the servers have sync_interval: always",
        )),
        (BackplaneKind::Nats, Kept::Disk) => Some(Problem::warning(
            "backplane.kept",
            "holds only while every NATS server has sync_interval: always, which cannot be asked from here",
            "set it in the jetstream section of each server, or use \"async\"",
        )),
        _ => None,
    }
}

fn times(config: &Config) -> Vec<Problem> {
    let backplane = &config.backplane;
    let mut problems = Vec::new();
    if backplane.lease < backplane.call_timeout * CALLS_PER_LEASE {
        let what = format!(
            "less than {CALLS_PER_LEASE} times backplane.call_timeout, {:?}: one late answer could make this node's users leave",
            backplane.call_timeout
        );
        problems.push(Problem::error(
            "backplane.lease",
            what,
            "raise it, or lower backplane.call_timeout",
        ));
    }
    if backplane.kept == Kept::Replica && backplane.wait_timeout >= backplane.publish_timeout {
        let what = format!(
            "not less than backplane.publish_timeout, {:?}: nobody would be left to hear the answer",
            backplane.publish_timeout
        );
        problems.push(Problem::error(
            "backplane.wait_timeout",
            what,
            "lower it, or raise backplane.publish_timeout",
        ));
    }
    if backplane.publish_timeout >= config.room.key_window {
        let what = format!(
            "not less than room.key_window, {:?}: a retry could be kept twice",
            config.room.key_window
        );
        problems.push(Problem::error(
            "backplane.publish_timeout",
            what,
            "lower it, or raise room.key_window",
        ));
    }
    problems
}

fn ca_file(backplane: &Backplane) -> Option<Problem> {
    const KEY: &str = "backplane.ca_file";
    let path = backplane.ca_file.as_ref()?;
    authorities(KEY, path).or_else(|| {
        (!backplane.url.tls).then(|| {
            Problem::warning(
                KEY,
                "backplane.url is one without TLS: the file is not looked at",
                "write the URL as rediss:// or tls://, or leave this out",
            )
        })
    })
}

fn queues(config: &Config) -> Vec<Problem> {
    let backplane = &config.backplane;
    let mut problems = Vec::new();
    let envelope_bytes_max = config.limits.message_bytes + ENVELOPE_BYTES_MAX;
    if backplane.room_queue_bytes < envelope_bytes_max {
        let what = format!(
            "{} bytes cannot hold one chat of limits.message_bytes, {} bytes, and its envelope",
            backplane.room_queue_bytes, config.limits.message_bytes
        );
        problems.push(Problem::error(
            "backplane.room_queue_bytes",
            what,
            format!("at least {envelope_bytes_max}, better several times that"),
        ));
    }
    if backplane.node_queue_bytes < backplane.room_queue_bytes {
        let what = format!(
            "{} bytes for all rooms are less than backplane.room_queue_bytes for one, {}",
            backplane.node_queue_bytes, backplane.room_queue_bytes
        );
        problems.push(Problem::error(
            "backplane.node_queue_bytes",
            what,
            "raise it, or lower backplane.room_queue_bytes",
        ));
    }
    problems
}
