//! What stands in front of the server: who is believed to be there, and whether TLS may be left to it.

use crate::config::problem::Problem;
use crate::config::{Config, Networks, TlsMode};

/// Checks that plain HTTP stays on this machine, and that trust goes no further than it must.
pub fn check(config: &Config) -> Vec<Problem> {
    let server = &config.server;
    let mut problems = Vec::new();
    problems.extend(trust("server.proxy_from", &server.proxy_from));
    problems.extend(trust("server.forwarded_from", &server.forwarded_from));
    match config.tls.mode {
        TlsMode::On if server.listen.tcp().is_none() => problems.push(Problem::error(
            "tls.mode",
            format!("TLS is not spoken on {}", server.listen),
            "set tls.mode = \"off\" and let the proxy in front speak TLS, or listen on an address",
        )),
        TlsMode::On => {}
        TlsMode::Off if server.listen.is_local() => problems.extend(without_tls(config)),
        TlsMode::Off => problems.push(Problem::error(
            "tls.mode",
            format!(
                "without TLS everybody on the way to {} could read every token and message",
                server.listen
            ),
            "listen on 127.0.0.1:PORT or unix:PATH with a proxy on this machine in front, or set tls.certificate and tls.key",
        )),
    }
    problems
}

fn trust(key: &'static str, trusted: &Networks) -> Option<Problem> {
    let everybody = trusted.networks.iter().any(|network| network.prefix_len() == 0);
    let what = "every address is trusted: whoever reaches server.listen may claim to be anyone";
    let remedy = "name the networks of your balancers, or let a firewall admit nobody else";
    everybody.then(|| Problem::warning(key, what, remedy))
}

fn without_tls(config: &Config) -> Vec<Problem> {
    let server = &config.server;
    let mut problems = vec![Problem::warning(
        "tls.mode",
        format!(
            "NO TLS: tokens and messages are plain text on {}; browsers need https, which only a proxy in front gives them",
            server.listen
        ),
        "fine behind a proxy on this machine that speaks TLS; else set tls.mode = \"on\"",
    )];
    if server.proxy_from.is_empty() && server.forwarded_from.is_empty() {
        problems.push(Problem::warning(
            "server.forwarded_from",
            "not set: all clients have the proxy's address, and share its limits",
            match server.listen.tcp() {
                Some(_) => "set it to [\"127.0.0.1/32\"] if the proxy sets X-Forwarded-For or Forwarded",
                None => "set it to [\"unix\"] if the proxy sets X-Forwarded-For or Forwarded",
            },
        ));
    }
    problems
}
