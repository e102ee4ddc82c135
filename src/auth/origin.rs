//! Which pages may open a socket: an allow-list, and our own page.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use ::http::header::{HOST, ORIGIN};
use ::http::request::Parts;

/// `origin.allow`, parsed.
#[derive(Debug, Default)]
pub struct Allow {
    exact: HashSet<Box<str>>,
    wildcards: Vec<Wildcard>,
    any: bool,
}

/// `https://*.example.com`
#[derive(Debug)]
struct Wildcard {
    /// `https://`
    before: String,
    /// `.example.com`
    after: String,
}

/// How a request's Origin was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginVerdict {
    /// No Origin: not a browser's page.
    Absent,
    /// `https://` and the Host, which is a name of the certificate.
    SameOrigin,
    /// Listed exactly.
    Listed,
    /// One label under a listed wildcard.
    Wildcard,
    /// Everything is allowed.
    Any,
}

impl OriginVerdict {
    /// Browsers send cookies along for any page, so only a page that is named may use one.
    pub const fn allows_cookie(self) -> bool {
        matches!(self, Self::SameOrigin | Self::Listed)
    }
}

/// Why a request is foreign: 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Two Origin headers.
    Twice,
    /// `null`: a sandboxed frame, a file, a redirect across origins.
    Null,
    /// Not an origin.
    Malformed,
    NotListed,
}

impl Foreign {
    /// The metric's label and the log's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Twice => "origin_twice",
            Self::Null => "origin_null",
            Self::Malformed => "origin_malformed",
            Self::NotListed => "origin_not_listed",
        }
    }
}

/// Reads `origin.allow`.
///
/// # Errors
/// One sentence for each entry that is no origin.
pub fn parse_allow(entries: &[String]) -> Result<Allow, Vec<String>> {
    let (mut allow, mut problems) = (Allow::default(), Vec::new());
    for entry in entries {
        if let Err(problem) = allow.add(entry) {
            problems.push(format!("{entry:?} {problem}"));
        }
    }
    if problems.is_empty() { Ok(allow) } else { Err(problems) }
}

impl Allow {
    fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        if entry == "*" {
            self.any = true;
        } else if let Some((before, after)) = entry.split_once("//*.") {
            let suffix = normal(&format!("{before}//{after}")).ok_or(NOT_AN_ORIGIN)?;
            let (scheme, host) = suffix.split_once("//").ok_or(NOT_AN_ORIGIN)?;
            let name = host.split(':').next().unwrap_or(host);
            if host.starts_with('[') || !(name.contains('.') || name == "localhost") {
                return Err("allows far too much: name at least two labels after the *");
            }
            self.wildcards.push(Wildcard {
                before: format!("{scheme}//"),
                after: format!(".{host}"),
            });
        } else if entry.contains('*') {
            return Err("has a * elsewhere than as the whole first label");
        } else {
            self.exact.insert(normal(entry).ok_or(NOT_AN_ORIGIN)?.into());
        }
        Ok(())
    }

    pub(super) fn judge(&self, parts: &Parts, host_is_ours: &dyn Fn(&str) -> bool) -> Result<OriginVerdict, Foreign> {
        let mut headers = parts.headers.get_all(ORIGIN).iter();
        let Some(origin) = headers.next() else {
            return Ok(OriginVerdict::Absent);
        };
        if headers.next().is_some() {
            return Err(Foreign::Twice);
        }
        let origin = origin.to_str().map_err(|_| Foreign::Malformed)?;
        if origin == "null" {
            return Err(Foreign::Null);
        }
        let origin = normal(origin).ok_or(Foreign::Malformed)?;
        if self.exact.contains(&*origin) {
            Ok(OriginVerdict::Listed)
        } else if is_same_origin(&origin, parts, host_is_ours) {
            Ok(OriginVerdict::SameOrigin)
        } else if self.wildcards.iter().any(|wildcard| wildcard.matches(&origin)) {
            Ok(OriginVerdict::Wildcard)
        } else if self.any {
            Ok(OriginVerdict::Any)
        } else {
            Err(Foreign::NotListed)
        }
    }
}

/// The one Origin that a request has, as it is compared.
pub(super) fn of(parts: &Parts) -> Option<String> {
    let mut headers = parts.headers.get_all(ORIGIN).iter();
    match (headers.next(), headers.next()) {
        (Some(one), None) => normal(one.to_str().ok()?),
        _ => None,
    }
}

impl Wildcard {
    fn matches(&self, origin: &str) -> bool {
        let label = origin
            .strip_prefix(&*self.before)
            .and_then(|rest| rest.strip_suffix(&*self.after));
        label.is_some_and(|label| !label.is_empty() && !label.contains(['.', ':', '[']))
    }
}

const NOT_AN_ORIGIN: &str =
    "is not an origin: write scheme://host or scheme://host:port, no path, names in ASCII (xn--)";

/// Whether the page came from this very server, under a name that is really ours. The second half matters: a name
/// that an attacker points at our address makes Origin and Host agree too.
fn is_same_origin(origin: &str, parts: &Parts, host_is_ours: &dyn Fn(&str) -> bool) -> bool {
    let Some(own) = authority(parts).and_then(|authority| normal(&format!("https://{authority}"))) else {
        return false;
    };
    let host = own.strip_prefix("https://").map(host_of).unwrap_or_default();
    own == origin && host_is_ours(host)
}

/// `:authority` of HTTP/2, or the one Host header; where both exist they must agree.
fn authority(parts: &Parts) -> Option<&str> {
    let mut headers = parts.headers.get_all(HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (None, _) => None,
        (Some(one), None) => Some(one.to_str().ok()?),
        (Some(_), Some(_)) => return None,
    };
    match (parts.uri.authority().map(http::uri::Authority::as_str), header) {
        (Some(line), Some(header)) if !line.eq_ignore_ascii_case(header) => None,
        (line, header) => line.or(header),
    }
}

/// The host without port and without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or(inner),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// `scheme://host[:port]` in lower case, without the scheme's default port; None for anything else.
fn normal(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://")?;
    let scheme_is_good = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (host, port) = split_port(authority)?;
    if !scheme_is_good || !is_host(host) {
        return None;
    }
    let default_port = match scheme {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    };
    Some(match port.filter(|port| Some(*port) != default_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[after_host..].split_once(':') {
        None => Some((authority, None)),
        Some((name, port)) => {
            let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| digits)?;
            Some((&authority[..after_host + name.len()], Some(port)))
        }
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.split('.').all(|label| !label.is_empty())
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        }
    }
}

#[cfg(test)]
mod tests;
