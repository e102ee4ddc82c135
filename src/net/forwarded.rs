//! Whose request it is, as HTTP proxies say: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Anybody can send these headers, so they count only on a connection of `server.forwarded_from`, and only from the right:
//! each proxy adds what it saw behind what it was sent. The client is the rightmost address that is no such proxy; what
//! stands left of it is the client's own claim. Only the address is taken; scheme and host (`proto`, `host`) are not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};

use crate::config::Networks;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Hops that are looked at, from the right. Nobody has so many proxies of their own.
const HOPS_MAX: usize = 64;

/// Who stands at one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    Known(SocketAddr),
    /// `unknown`, an obfuscated identifier (`_x`), or nothing that can be read.
    Hidden,
}

/// The client's address, where the connection is that of `peer`: its own, unless it is trusted and names another.
///
/// Where a request has both headers and they disagree, one of them is the client's: neither is believed.
#[must_use]
pub fn client(headers: &HeaderMap, peer: SocketAddr, trusted: &Networks) -> SocketAddr {
    let of = |name: &HeaderName, hops: fn(&str) -> Vec<Hop>| {
        let lines = headers.get_all(name);
        let mut lines = lines.iter().peekable();
        lines.peek()?;
        Some(rightmost_stranger(lines, hops, peer, trusted))
    };
    match (of(&X_FORWARDED_FOR, commas), of(&FORWARDED, elements)) {
        (Some(one), Some(other)) if one.ip() != other.ip() => peer,
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => peer,
    }
}

fn rightmost_stranger<'a>(
    lines: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    hops: fn(&str) -> Vec<Hop>,
    peer: SocketAddr,
    trusted: &Networks,
) -> SocketAddr {
    let mut last = peer;
    let mut seen = 0;
    // A proxy may add a line of its own: each is read for itself, so that what the client sent cannot swallow it.
    for line in lines.rev() {
        let hops = line.to_str().map_or_else(|_| vec![Hop::Hidden], hops);
        for hop in hops.into_iter().rev() {
            seen += 1;
            match hop {
                Hop::Known(address) if seen <= HOPS_MAX => {
                    last = address;
                    if !trusted.trust(Some(address.ip())) {
                        return last;
                    }
                }
                // Beyond it nobody is trusted: the nearest that is known stands for whoever it is.
                _ => return last,
            }
        }
    }
    last
}

/// `X-Forwarded-For: 192.0.2.1, 2001:db8::1, [2001:db8::1]:4711`
fn commas(line: &str) -> Vec<Hop> {
    let hops = line.split(',').map(str::trim);
    // RFC 9110 section 5.6.1.2: empty elements do not count.
    hops.filter(|hop| !hop.is_empty()).map(node).collect()
}

/// `Forwarded: for=192.0.2.1;proto=https, for="[2001:db8::1]:4711"`. A line that breaks the grammar anywhere says nothing
/// at all: an unbalanced quote would swallow what a proxy has added.
fn elements(line: &str) -> Vec<Hop> {
    parse_elements(line).unwrap_or_else(|| vec![Hop::Hidden])
}

fn parse_elements(mut rest: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    let (mut found, mut is_empty) = (None, true);
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            is_empty = false;
            let (name, value, after) = pair(rest)?;
            if name.eq_ignore_ascii_case("for") && found.replace(node(&value)).is_some() {
                // RFC 7239 section 4: each parameter at most once per element.
                return None;
            }
            rest = after.trim_start_matches([' ', '\t']);
        }
        match rest.chars().next() {
            Some(';') => rest = &rest[1..],
            end @ (Some(',') | None) => {
                if !std::mem::replace(&mut is_empty, true) {
                    hops.push(found.take().unwrap_or(Hop::Hidden));
                }
                if end.is_none() {
                    return Some(hops);
                }
                rest = &rest[1..];
            }
            Some(_) => return None,
        }
    }
}

/// `token "=" ( token / quoted-string )`, and what follows.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_at(text.find(|c| !is_token(c))?);
    let rest = rest.strip_prefix('=').filter(|_| !name.is_empty())?;
    let Some(quoted) = rest.strip_prefix('"') else {
        // Colons and brackets must be quoted, and are often not.
        let is_bare = |c: char| is_token(c) || "[]:".contains(c);
        let (value, rest) = rest.split_at(rest.find(|c| !is_bare(c)).unwrap_or(rest.len()));
        return (!value.is_empty()).then(|| (name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((name, value, &quoted[at + 1..])),
            (_, '\\') => value.push(characters.next()?.1),
            (_, character) => value.push(character),
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// An address with or without port; IPv6 with or without brackets.
fn node(text: &str) -> Hop {
    let parsed = match text.strip_prefix('[') {
        Some(inner) => bracketed(inner),
        None => match text.split_once(':') {
            // More than one colon: an IPv6 address without brackets, and so without port.
            Some((_, rest)) if rest.contains(':') => text.parse().ok().map(|address: Ipv6Addr| (address.into(), 0)),
            Some((address, port)) => with_port(address, Some(port)),
            None => with_port(text, None),
        },
    };
    parsed.map_or(Hop::Hidden, |(address, port)| {
        Hop::Known(SocketAddr::new(address.to_canonical(), port))
    })
}

fn bracketed(inner: &str) -> Option<(IpAddr, u16)> {
    let (address, after) = inner.split_once(']')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let port = match after.strip_prefix(':') {
        Some(text) => port(text)?,
        None => after.is_empty().then_some(0)?,
    };
    Some((address.into(), port))
}

fn with_port(address: &str, after: Option<&str>) -> Option<(IpAddr, u16)> {
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    Some((address.into(), after.map_or(Some(0), port)?))
}

/// RFC 7239 section 6: up to five digits, or an obfuscated port, which is none to us.
fn port(text: &str) -> Option<u16> {
    if let Some(obfuscated) = text.strip_prefix('_') {
        let is_word = !obfuscated.is_empty()
            && obfuscated
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        return is_word.then_some(0);
    }
    let is_digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
