//! `[admin]`: whoever holds one of its tokens sees and moves every user, so they are checked like keys.

use std::collections::HashSet;

use secrecy::{ExposeSecret, SecretString};

use crate::config::problem::{Problem, Severity};
use crate::config::{AdminToken, Config};

/// Shortest token: nobody guesses 32 random bytes, however fast.
pub const TOKEN_BYTES_MIN: usize = 32;

const HOSTS: &str = "admin.hosts";

/// The tokens of a file: one a line, a name in front of it or not; empty lines and those that begin with `#` are none.
pub fn tokens(key: &str, text: &SecretString, problems: &mut Vec<Problem>) -> Vec<AdminToken> {
    let mut tokens = Vec::new();
    let mut refuse = |what: String, remedy: &str| problems.push(Problem::error(key, what, remedy));
    for (number, line) in (1..).zip(text.expose_secret().lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, token) = match words[..] {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [token] => (format!("token-{}", tokens.len() + 1), token),
            [name, token] => (name.to_owned(), token),
            _ => {
                refuse(
                    format!("line {number} of the file: more than a name and a token"),
                    "write \"name token\", or the token alone",
                );
                continue;
            }
        };
        if token.len() < TOKEN_BYTES_MIN {
            let what = format!(
                "line {number} of the file: a token of {} bytes is too short, at least {TOKEN_BYTES_MIN}",
                token.len()
            );
            refuse(what, "\"openssl rand -hex 32\" makes a good one");
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = format!("line {number} of the file: a token of characters that no HTTP header carries");
            refuse(what, "\"openssl rand -hex 32\" makes a good one");
        } else if name.len() > 64 || name.chars().any(char::is_control) {
            refuse(
                format!("line {number} of the file: the name is no name"),
                "at most 64 bytes, such as \"ann\"",
            );
        } else {
            tokens.push(AdminToken {
                name,
                secret: token.into(),
            });
        }
    }
    if tokens.is_empty()
        && problems
            .iter()
            .all(|problem| problem.key != key || problem.severity != Severity::Error)
    {
        problems.push(Problem::error(
            key,
            "no token in the file",
            "\"openssl rand -hex 32\" makes one; write it into the file",
        ));
    }
    tokens
}

/// What is wrong with the rest.
pub fn check(config: &Config) -> Vec<Problem> {
    let admin = &config.admin;
    let mut problems: Vec<Problem> = admin.hosts.iter().filter_map(|host| not_a_host(host)).collect();
    let mut names = HashSet::new();
    if let Some(twice) = admin.tokens.iter().find(|token| !names.insert(&token.name)) {
        problems.push(Problem::warning(
            "admin.token_file",
            format!(
                "two tokens are named \"{}\": the audit log cannot tell them apart",
                twice.name
            ),
            "give each a name of its own",
        ));
    }
    if !admin.tokens.is_empty() && !config.server.admin_listen.ip().is_loopback() {
        let what = format!(
            "{} can be reached from other machines over plain HTTP: the tokens of admin.token_file can be read on the way",
            config.server.admin_listen
        );
        problems.push(Problem::warning(
            "admin.token_file",
            what,
            "listen on 127.0.0.1 and come through ssh -L or kubectl port-forward, or through a proxy with TLS",
        ));
    }
    problems
}

/// A `Host` is a name or an address, perhaps with a port.
fn not_a_host(host: &str) -> Option<Problem> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    let why = match () {
        () if host.contains("://") || host.contains('/') => "a host, not a URL",
        () if host.contains('*') => "every name would pass: any web page could have this node answer it",
        () if host.is_empty() || !host.chars().all(is_plain) => "not the name of a host",
        () => return None,
    };
    Some(Problem::error(
        HOSTS,
        format!("\"{host}\": {why}"),
        "write it as in the browser's address bar, such as \"node-1.internal\" or \"10.0.0.7:9464\"",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let mut problems = Vec::new();
        let tokens = tokens("admin.token_file", &text.into(), &mut problems);
        (
            tokens.into_iter().map(|token| token.name).collect(),
            problems.into_iter().map(|problem| problem.what).collect(),
        )
    }

    #[test]
    fn tokens_have_names_and_are_long() {
        let long = "0123456789abcdef0123456789abcdef";
        assert_eq!(read(long), (vec!["token-1".to_owned()], vec![]));
        let text = format!("# who may\n\nann {long}\n  bob\t{long}x  \n{long}y\n");
        assert_eq!(
            read(&text),
            (vec!["ann".to_owned(), "bob".to_owned(), "token-3".to_owned()], vec![])
        );
        for (text, what) in [
            ("", "no token"),
            ("# nothing\n", "no token"),
            ("short", "too short"),
            (&format!("ann bob {long}"), "more than a name"),
            (&format!("ann {long}é"), "no HTTP header"),
            (&format!("{} {long}", "n".repeat(65)), "no name"),
        ] {
            let (names, problems) = read(text);
            assert!(names.is_empty(), "{text}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(what), "{text}: {problems:?}");
            assert!(!problems[0].contains(long), "the token is not said");
        }
    }

    #[test]
    fn hosts_are_hosts() {
        for host in [
            "node-1.internal",
            "10.0.0.7:9464",
            "[2001:db8::1]:9464",
            "admin.example.com",
        ] {
            assert_eq!(not_a_host(host), None, "{host}");
        }
        for host in ["http://a", "a/b", "*", "*.example.com", "", "a b"] {
            assert!(not_a_host(host).is_some(), "{host}");
        }
    }
}
