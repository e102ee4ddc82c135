//! `auth.forward`: what would let nobody in, or tell a stranger who your users are.

use std::path::Path;

use super::acme::authorities;
use super::is_token;
use crate::config::problem::Problem;
use crate::config::{Config, Forward, Key, Outbound};
use crate::outbound::{Rule, Target};

/// Every cookie but our own.
const ALL: &str = "*";

/// Headers that belong to one connection or are made by us.
const NOT_OURS_TO_PASS_ON: [&str; 14] = [
    "accept",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-conclave-origin",
];

/// Longest prefix: with it a user id must still have room for the id itself.
const PREFIX_BYTES_MAX: usize = 128;

/// Checks what is asked, and what is passed on.
pub fn check(config: &Config) -> Vec<Problem> {
    let forward = &config.auth.forward;
    let Some(url) = &forward.url else {
        return Vec::new();
    };
    let mut problems = Vec::from_iter(place(url, &config.outbound));
    problems.extend(forward.ca_file.as_deref().and_then(|path| ca_file(path, url)));
    problems.extend(cookies(forward, &config.auth.cookie));
    problems.extend(headers(forward));
    if forward.cookies.is_empty() && forward.headers.is_empty() {
        problems.push(Problem::error(
            "auth.forward.cookies",
            "neither a cookie nor a header is passed on: nobody could be told from anybody",
            "name the cookie of your application's session",
        ));
    }
    if forward.timeout > config.limits.admission_time {
        let what = format!(
            "{:?} is longer than limits.admission_time, {:?}, after which the client is turned away",
            forward.timeout, config.limits.admission_time
        );
        problems.push(Problem::warning(
            "auth.forward.timeout",
            what,
            "lower it, or raise limits.admission_time",
        ));
    }
    if forward.user_prefix.len() > PREFIX_BYTES_MAX || forward.user_prefix.contains(char::is_control) {
        problems.push(Problem::error(
            "auth.forward.user_prefix",
            format!("a prefix has at most {PREFIX_BYTES_MAX} bytes and no control characters"),
            "a word and a colon do, such as \"shop:\"",
        ));
    }
    problems.extend(prefix(config));
    problems
}

/// An issuer whose user ids mix with those that the application names: its `admin` would be the application's.
fn prefix(config: &Config) -> Option<Problem> {
    let forward = &config.auth.forward;
    // A key without an issuer is the application's own: its tokens name the same users.
    let is_same = |key: &Key| key.issuer.is_some() && key.user_prefix == forward.user_prefix;
    let index = config.auth.keys.iter().position(is_same)?;
    Some(Problem::warning(
        "auth.forward.user_prefix",
        format!(
            "auth.keys[{index}] has an issuer and the same user_prefix: its user ids are not told from the application's"
        ),
        "give one of them a prefix of its own, such as \"shop:\", unless both name the same users",
    ))
}

/// The URL is not quoted: it may hold a password.
fn place(url: &str, outbound: &Outbound) -> Option<Problem> {
    const KEY: &str = "auth.forward.url";
    let remedy = "write it as http://127.0.0.1:3000/whoami or https://app.example.com/whoami";
    let target = match Target::parse(url) {
        Ok(target) => target,
        Err(what) => return Some(Problem::error(KEY, what, remedy)),
    };
    if let Err(what) = target.check(&Rule::new(&outbound.networks)) {
        return Some(Problem::error(KEY, what, remedy));
    }
    // A name without a dot exists only inside one's own network.
    let is_near = target.is_here() || !target.host().contains(['.', ':']);
    (target.is_plain() && !is_near).then(|| {
        Problem::warning(
            KEY,
            "http to another machine: your users' session cookies are plain text on the way",
            "use https, or a network that nobody else is on",
        )
    })
}

fn ca_file(path: &Path, url: &str) -> Option<Problem> {
    const KEY: &str = "auth.forward.ca_file";
    authorities(KEY, path).or_else(|| {
        url.starts_with("http://").then(|| {
            Problem::warning(
                KEY,
                "auth.forward.url is one without TLS: the file is not looked at",
                "write the URL as https://, or leave this out",
            )
        })
    })
}

fn cookies(forward: &Forward, ours: &str) -> Vec<Problem> {
    const KEY: &str = "auth.forward.cookies";
    let wrong = |name: &String| {
        let (what, remedy) = if name == ALL {
            return None;
        } else if name == ours {
            (
                format!("\"{name}\" is auth.cookie, which carries a token and is not passed on"),
                "leave it out",
            )
        } else if is_token(name) {
            return None;
        } else {
            (
                format!("\"{name}\" is not a name that a cookie can have"),
                "write its name alone, such as \"koa.sess\"",
            )
        };
        Some(Problem::error(KEY, what, remedy))
    };
    let mut problems: Vec<Problem> = forward.cookies.iter().filter_map(wrong).collect();
    if forward.cookies.len() > 1 && forward.cookies.iter().any(|name| name == ALL) {
        problems.push(Problem::warning(
            KEY,
            "\"*\" is every cookie: the names beside it say nothing",
            "keep one of the two; the names are better",
        ));
    }
    problems
}

fn headers(forward: &Forward) -> Vec<Problem> {
    const KEY: &str = "auth.forward.headers";
    let wrong = |name: &String| {
        let lower = name.to_ascii_lowercase();
        let (what, remedy) = if !is_token(name) {
            (
                format!("\"{name}\" is not a name that a header can have"),
                "write its name alone, such as \"X-Session\"",
            )
        } else if lower == "cookie" {
            (
                "\"Cookie\" is passed on as auth.forward.cookies says".to_owned(),
                "leave it out",
            )
        } else if NOT_OURS_TO_PASS_ON.contains(&&*lower)
            || lower.starts_with("sec-websocket-")
            || lower.starts_with("proxy-")
        {
            (
                format!("\"{name}\" belongs to the connection of the client, or is made here"),
                "leave it out",
            )
        } else {
            return None;
        };
        Some(Problem::error(KEY, what, remedy))
    };
    forward.headers.iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeySource, default_config};

    fn said(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = default_config();
        config.auth.forward.url = Some("http://127.0.0.1:3000/whoami".into());
        change(&mut config);
        let problems = check(&config);
        problems
            .into_iter()
            .map(|problem| format!("{} {}: {}", problem.severity.as_str(), problem.key, problem.what))
            .collect()
    }

    #[test]
    fn what_works_is_left_alone() {
        for url in [
            "https://app.example.com/whoami?x=1",
            "http://app:3000",
            "http://localhost:1/",
            "http://[::1]:1/a",
        ] {
            assert_eq!(
                said(|config| config.auth.forward.url = Some(url.into())),
                [""; 0],
                "{url}"
            );
        }
        assert_eq!(
            said(|config| config.auth.forward.headers = vec!["X-Session".into(), "Authorization".into()]),
            [""; 0]
        );
        assert_eq!(said(|config| config.auth.forward.url = None), [""; 0]);
    }

    #[test]
    fn an_issuer_without_a_prefix_of_its_own_is_told() {
        let with = |issuer: Option<&str>, prefix: &str| {
            said(|config| {
                config.auth.keys.push(Key {
                    algorithm: "ES256".into(),
                    source: KeySource::PublicKeyFile("key.pem".into()),
                    kid: None,
                    issuer: issuer.map(Into::into),
                    audience: Vec::new(),
                    user_prefix: prefix.into(),
                    set_in: String::new(),
                });
            })
            .into_iter()
            .filter(|told| told.contains("user_prefix"))
            .count()
        };
        assert_eq!(with(Some("https://login.example.com"), ""), 1);
        assert_eq!(with(Some("https://login.example.com"), "login:"), 0);
        assert_eq!(with(None, ""), 0, "the application's own key names the same users");
    }

    #[test]
    fn a_bad_place_says_what_is_wrong_without_its_password() {
        let check = |url: &str, part: &str| {
            let all = said(|config| config.auth.forward.url = Some(url.into())).join("\n");
            assert!(all.contains(part) && !all.contains("hunter2"), "{url}: {all}");
        };
        check("ftp://app/whoami", "neither https:// nor http://");
        check("app.example.com", "not a URL");
        check("/whoami", "not a URL");
        check("https://ann:hunter2@app.example.com/", "password");
        check("https://app.example.com/#hunter2", "fragment");
        check(
            "http://app.example.com/",
            "warning auth.forward.url: http to another machine",
        );
        check("https://hunter2 .example.com/", "not a URL");
        check("http://169.254.169.254/hunter2", "outbound.networks");
    }

    #[test]
    fn only_what_says_who_somebody_is_is_passed_on() {
        let check = |cookies: &[&str], headers: &[&str], part: &str| {
            let all = said(|config| {
                config.auth.forward.cookies = cookies.iter().map(ToString::to_string).collect();
                config.auth.forward.headers = headers.iter().map(ToString::to_string).collect();
            });
            assert!(all.iter().any(|line| line.contains(part)), "{part}: {all:?}");
        };
        check(&[], &[], "neither a cookie nor a header");
        check(&["conclave_token"], &[], "carries a token");
        check(&["a=b"], &[], "cookie can have");
        check(&["*", "sid"], &[], "every cookie");
        check(&[], &["Cookie"], "as auth.forward.cookies says");
        check(&[], &["Sec-WebSocket-Key"], "belongs to the connection");
        check(&[], &["X-Conclave-Origin"], "belongs to the connection");
        check(&[], &["a b"], "header can have");
    }
}
