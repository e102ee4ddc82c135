//! What stands in front of the server: who is believed to be there, and whether TLS may be left to it.

use crate::config::problem::Problem;
use crate::config::{ClientAuth, Config, Networks, TlsMode};

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
    let spoken = "set tls.mode = \"on\", or leave it out and let the proxy see to it";
    if config.tls.client_auth != ClientAuth::Off {
        let what = "clients are asked for a certificate in a TLS handshake, and tls.mode is \"off\"";
        problems.push(Problem::error("tls.client_auth", what, spoken));
    }
    if config.acme.is_on() {
        let what = "a certificate is for TLS, and tls.mode is \"off\"";
        problems.push(Problem::error("acme.domains", what, spoken));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Severity;
    use crate::config::{Listen, default_config};

    fn found(change: impl FnOnce(&mut Config)) -> Vec<(String, Severity)> {
        let mut config = default_config();
        change(&mut config);
        check(&config)
            .into_iter()
            .map(|problem| (problem.key, problem.severity))
            .collect()
    }

    fn off(config: &mut Config, listen: Listen) {
        config.tls.mode = TlsMode::Off;
        config.server.listen = listen;
        config.server.forwarded_from.unix = true;
    }

    fn tcp(address: &str) -> Listen {
        Listen::Tcp(address.parse().expect("an address"))
    }

    #[test]
    fn plain_text_stays_on_this_machine() {
        let error = || vec![("tls.mode".to_owned(), Severity::Error)];
        let warning = || vec![("tls.mode".to_owned(), Severity::Warning)];
        assert_eq!(found(|_| {}), []);
        for address in ["0.0.0.0:8443", "[::]:8443", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            assert_eq!(found(|config| off(config, tcp(address))), error(), "{address}");
        }
        for listen in [
            tcp("127.0.0.1:8080"),
            tcp("127.9.9.9:1"),
            tcp("[::1]:8080"),
            Listen::Unix("/run/c".into()),
        ] {
            assert_eq!(found(|config| off(config, listen.clone())), warning(), "{listen}");
        }
        let unix = Listen::Unix("/run/c".into());
        assert_eq!(
            found(|config| config.server.listen = unix.clone()),
            error(),
            "TLS is on"
        );
    }

    #[test]
    fn what_needs_tls_is_not_left_out_silently() {
        let keys = |change: fn(&mut Config)| -> Vec<String> {
            let found = found(|config| {
                off(config, tcp("127.0.0.1:1"));
                change(config);
            });
            found.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(
            keys(|config| config.tls.client_auth = ClientAuth::Required),
            ["tls.mode", "tls.client_auth"]
        );
        assert_eq!(
            keys(|config| config.acme.domains = vec!["a.example.com".to_owned()]),
            ["tls.mode", "acme.domains"]
        );
        assert_eq!(
            keys(|config| config.server.forwarded_from.unix = false),
            ["tls.mode", "server.forwarded_from"]
        );
    }
}
