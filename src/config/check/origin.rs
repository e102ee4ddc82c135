//! `origin.allow`: an entry that a browser would never send is a mistake that would be noticed in production.

use crate::config::Config;
use crate::config::problem::Problem;

const KEY: &str = "origin.allow";

/// Checks every entry, and what the list as a whole allows.
pub fn check(config: &Config) -> Vec<Problem> {
    let forward = &config.auth.forward;
    let cookies = if config.session.enabled {
        Some("session.enabled")
    } else {
        Some("auth.forward.cookies").filter(|_| forward.url.is_some() && !forward.cookies.is_empty())
    };
    check_list(&config.origin.allow, cookies)
}

/// `cookies` names the key by which a cookie says who somebody is.
fn check_list(allow: &[String], cookies: Option<&'static str>) -> Vec<Problem> {
    let wrong = |entry: &String| {
        let (why, remedy) = mistake(entry)?;
        Some(Problem::error(KEY, format!("\"{entry}\": {why}"), remedy))
    };
    let mut problems: Vec<Problem> = allow.iter().filter_map(wrong).collect();
    if allow.iter().any(|entry| entry == "*") {
        problems.push(any_origin(cookies));
    }
    problems
}

fn any_origin(cookies: Option<&'static str>) -> Problem {
    if let Some(key) = cookies {
        let what =
            format!("\"*\" together with {key}: any web page could act as whoever's cookie the browser sends along");
        return Problem::error(
            KEY,
            what,
            format!("list the origins of your pages, or do without {key}"),
        );
    }
    let what = "\"*\" lets pages of every web site connect, if they have a token";
    Problem::warning(
        KEY,
        what,
        "list the origins of your pages; tokens from cookies are refused as it is",
    )
}

/// Why `entry` is neither an origin as browsers send it (RFC 6454 section 6.2), nor a wildcard, and what it
/// should be.
fn mistake(entry: &str) -> Option<(&'static str, String)> {
    let example =
        || "write it as the browser does, such as https://app.example.com or https://app.example.com:8443".to_owned();
    if entry == "*" {
        return None;
    }
    if entry == "null" {
        return Some((
            "sent by sandboxed pages of any site, so it stands for nobody",
            "leave it out".to_owned(),
        ));
    }
    let Some((scheme, rest)) = entry.split_once("://") else {
        let remedy = if is_host(entry) {
            format!("did you mean https://{entry}?")
        } else {
            example()
        };
        return Some(("no scheme", remedy));
    };
    if !is_scheme(scheme) {
        return Some(("not a scheme", example()));
    }
    if let Some(at) = rest.find(['/', '?', '#']) {
        return Some((
            "an origin has no path",
            format!("did you mean {scheme}://{}?", &rest[..at]),
        ));
    }
    if rest.contains('@') {
        return Some(("an origin has no user", example()));
    }
    authority(scheme, rest).map(|why| (why, example()))
}

fn authority(scheme: &str, authority: &str) -> Option<&'static str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| {
        port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err()
    }) {
        return Some("not a port");
    }
    if let Some(base) = host.strip_prefix("*.") {
        return match () {
            () if scheme != "https" => Some("a wildcard needs https, or anyone on the way could be a page of yours"),
            () if !base.contains('.') => Some("a wildcard right under a top-level domain covers strangers"),
            () if !is_host(base) => Some("\"*\" stands for one label, at the front, once"),
            () => None,
        };
    }
    match () {
        () if host.contains('*') => Some("\"*\" stands for one whole label, at the front, once"),
        () if !host.is_ascii() => Some("browsers send such names in their ASCII form, which starts with \"xn--\""),
        () if is_ipv6(host) || is_host(host) => None,
        () => Some("not a host name"),
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Whether it is a host name, in ASCII.
pub fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_plain)
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

fn is_ipv6(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Severity;

    #[test]
    fn origins_as_browsers_send_them_pass() {
        for entry in [
            "*",
            "https://app.example.com",
            "https://app.example.com:8443",
            "https://*.example.com",
            "https://*.example.com:444",
            "http://localhost:3000",
            "https://[::1]:8443",
            "https://[2001:db8::1]",
            "https://192.0.2.7",
            "capacitor://localhost",
        ] {
            assert_eq!(mistake(entry), None, "{entry}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (entry, why, remedy) in [
            ("app.example.com", "no scheme", "https://app.example.com?"),
            ("", "no scheme", "such as"),
            ("null", "sandboxed", "leave it out"),
            (
                "https://app.example.com/",
                "no path",
                "did you mean https://app.example.com?",
            ),
            (
                "https://app.example.com/ws",
                "no path",
                "did you mean https://app.example.com?",
            ),
            ("https://a?b", "no path", "https://a?"),
            ("https://ann@example.com", "no user", ""),
            ("https://example.com:port", "not a port", ""),
            ("https://example.com:99999", "not a port", ""),
            ("https://example.com:", "not a port", ""),
            ("https://", "not a host", ""),
            ("https://a..b", "not a host", ""),
            ("https://a b", "not a host", ""),
            ("https://bücher.example", "xn--", ""),
            ("https://*.com", "top-level", ""),
            ("https://*", "one whole label", ""),
            ("https://*.*.example.com", "one label", ""),
            ("https://app.*.example.com", "one whole label", ""),
            ("https://*app.example.com", "one whole label", ""),
            ("http://*.example.com", "needs https", ""),
            ("1https://a.example", "not a scheme", ""),
        ] {
            let (found, fix) = mistake(entry).unwrap_or_else(|| panic!("{entry} passed"));
            assert!(found.contains(why), "{entry}: {found}");
            assert!(fix.contains(remedy), "{entry}: {fix}");
        }
    }

    #[test]
    fn any_origin_and_cookies_exclude_each_other() {
        let star = ["*".to_owned()];
        assert_eq!(check_list(&star, Some("session.enabled"))[0].severity, Severity::Error);
        assert_eq!(check_list(&star, None)[0].severity, Severity::Warning);
        assert!(check_list(&[], Some("session.enabled")).is_empty());
    }
}
