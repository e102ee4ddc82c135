//! Rules that need more than one value, or a look at a file. Each says what is wrong and how to fix it.

mod acme;
pub mod admin;
mod backplane;
mod clients;
mod forward;
mod hooks;
pub mod keys;
mod origin;
mod proxies;
pub mod risk;
mod rooms;
mod telemetry;
mod tls;

use std::net::SocketAddr;

use secrecy::ExposeSecret;

use super::problem::Problem;
use super::{BackplaneKind, Config, Limits, Server, TlsMode};
use crate::limits::ENVELOPE_BYTES_MAX;

/// Longest name of a node.
const NAME_BYTES_MAX: usize = 255;

/// What keeps `config` from working, and what a person should know; `extra` adds what other parts find.
/// Places are missing: `load` knows them.
pub fn check(config: &Config, extra: impl FnOnce(&Config) -> Vec<Problem>) -> Vec<Problem> {
    let mut problems = listeners(&config.server);
    problems.extend(proxies::check(config));
    if config.tls.mode == TlsMode::On {
        problems.extend(tls::check(config));
    }
    problems.extend(origin::check(config));
    problems.extend(identity(config));
    problems.extend(forward::check(config));
    problems.extend(outboxes(&config.limits));
    problems.extend(rates(&config.limits));
    problems.extend(history(config));
    problems.extend(rooms::check(config));
    problems.extend(backplane::check(config));
    problems.extend(admin::check(config));
    problems.extend(hooks::check(&config.hooks, &config.limits));
    problems.extend(telemetry::check(&config.log, &config.traces));
    problems.extend(extra(config));
    problems
}

fn listeners(server: &Server) -> Vec<Problem> {
    let mut problems = Vec::new();
    if server.name.len() > NAME_BYTES_MAX || server.name.contains(char::is_control) {
        problems.push(Problem::error(
            "server.name",
            format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters"),
            "a host name does, or leave it out",
        ));
    }
    if let Some(listen) = server.listen.tcp()
        && do_collide(listen, server.admin_listen)
    {
        let what = format!(
            "{} takes the port of server.listen, {}",
            server.admin_listen, server.listen
        );
        problems.push(Problem::error(
            "server.admin_listen",
            what,
            "give it a port of its own, such as 127.0.0.1:9464",
        ));
    }
    if !server.admin_listen.ip().is_loopback() {
        let what = format!(
            "{} can be reached from other machines, and it serves metrics without a password",
            server.admin_listen
        );
        problems.push(Problem::warning(
            "server.admin_listen",
            what,
            "let a firewall or a network policy admit only what scrapes it, or listen on 127.0.0.1",
        ));
    }
    problems
}

/// Port 0 is a free port of the system's choice and collides with nothing.
fn do_collide(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wild = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (is_wild || one.ip() == other.ip())
}

fn identity(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.auth.keys.is_empty() && !config.session.enabled && config.auth.forward.url.is_none() {
        let remedy = "add [[auth.keys]] with the key that your application signs its tokens with, name your application's own \
                      sessions in auth.forward.url, or set session.enabled for guests";
        problems.push(Problem::error(
            "auth.keys",
            "no key, and no sign-in: nobody could ever connect",
            remedy,
        ));
    }
    problems.extend(keys::prefixes(&config.auth.keys));
    problems.extend(keys::urls(config));
    if !is_token(&config.auth.cookie) {
        let what = "not a name that a cookie can have";
        problems.push(Problem::error(
            "auth.cookie",
            what,
            "use letters, digits, \"_\" and \"-\", such as conclave_token",
        ));
    }
    match &config.session.secret {
        Some(secret) => problems.extend(keys::length(
            "session.secret",
            secret.expose_secret().len(),
            keys::SECRET_BYTES_MIN,
        )),
        None if config.session.enabled => problems.push(Problem::warning(
            "session.enabled",
            match config.backplane.kind {
                BackplaneKind::Memory => "no session.secret_file: guests are signed out whenever the server restarts",
                _ => "no session.secret_file: a guest of one node is none on the others, nor after a restart",
            },
            "\"openssl rand -base64 48\" makes a secret; put it into a file and name that in session.secret_file",
        )),
        None => {}
    }
    problems
}

/// A name that a cookie or a header can have (RFC 9110 section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_good)
}

fn outboxes(limits: &Limits) -> Vec<Problem> {
    let mut problems = Vec::new();
    let frame_bytes_max = limits.message_bytes + ENVELOPE_BYTES_MAX;
    if limits.outbox_bytes < frame_bytes_max {
        let what = format!(
            "{} bytes cannot hold one chat of limits.message_bytes, {} bytes, and its envelope: every reader would be closed",
            limits.outbox_bytes, limits.message_bytes
        );
        problems.push(Problem::error(
            "limits.outbox_bytes",
            what,
            format!("at least {frame_bytes_max}, better several times that"),
        ));
    }
    if limits.node_outbox_bytes < limits.outbox_bytes {
        let what = format!(
            "{} bytes for all readers are less than limits.outbox_bytes for one, {}",
            limits.node_outbox_bytes, limits.outbox_bytes
        );
        problems.push(Problem::error(
            "limits.node_outbox_bytes",
            what,
            "raise it, or lower limits.outbox_bytes",
        ));
    }
    if limits.unsent_low_water > limits.send_buffer {
        let what = format!(
            "{} bytes are more than limits.send_buffer, {}, and would never be reached",
            limits.unsent_low_water, limits.send_buffer
        );
        problems.push(Problem::error(
            "limits.unsent_low_water",
            what,
            "half of limits.send_buffer works well",
        ));
    }
    problems
}

fn rates(limits: &Limits) -> Vec<Problem> {
    let mut problems = Vec::new();
    if limits.messages_burst > 0 && limits.messages_per_second == 0 {
        let what = "a burst without limits.messages_per_second limits nothing";
        problems.push(Problem::warning(
            "limits.messages_burst",
            what,
            "set limits.messages_per_second too, or leave this out",
        ));
    }
    for (key, per_second) in [
        ("limits.bytes_per_second", limits.bytes_per_second),
        ("limits.user_bytes_per_second", limits.user_bytes_per_second),
        ("limits.address_bytes_per_second", limits.address_bytes_per_second),
        ("limits.room_bytes_per_second", limits.room_bytes_per_second),
        ("limits.node_bytes_per_second", limits.node_bytes_per_second),
    ] {
        if per_second > 0 && per_second < limits.message_bytes as u64 {
            let what = format!(
                "{per_second} bytes per second are less than one message of limits.message_bytes, {}: such a message could never pass",
                limits.message_bytes
            );
            problems.push(Problem::error(key, what, "raise it, or lower limits.message_bytes"));
        }
    }
    problems
}

fn history(config: &Config) -> Vec<Problem> {
    let frame_bytes_max = config.limits.message_bytes + ENVELOPE_BYTES_MAX;
    if config.history.messages == 0 || config.history.bytes >= frame_bytes_max {
        return Vec::new();
    }
    let what = format!(
        "{} bytes cannot keep one chat of limits.message_bytes, {} bytes, and its envelope, though an \"ok\" promises that it is kept",
        config.history.bytes, config.limits.message_bytes
    );
    vec![Problem::error(
        "history.bytes",
        what,
        format!("at least {frame_bytes_max}, or history.messages = 0 for no history"),
    )]
}
