//! Who may use the operator's page and its API. In this order:
//!
//! 1. The `Host` is one of ours: a web page whose name was made to point here (DNS rebinding) is not.
//! 2. A token of `admin.token_file`, as `Authorization: Bearer`, or the cookie that the sign-in form gave for one.
//! 3. A change (anything but GET and HEAD) has the header `conclave-admin: 1`, which no page of another origin can send,
//!    because nothing here answers CORS; and comes from nowhere else, where the browser says from where.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::answer::Problem;
use super::audit::{self, Caller};
use super::failures::Failures;
use super::sessions::Sessions;
use crate::config;

/// What a change must bring along, with the value `1`.
pub const CHANGE_HEADER: &str = "conclave-admin";

/// Names by which a machine calls itself.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Both ends of a connection to the admin listener, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// The tokens, the names, and who is signed in.
pub struct Guard {
    hosts: Vec<String>,
    tokens: Vec<Token>,
    failures: Failures,
    pub sessions: Sessions,
    /// Cookies do not know ports: two nodes on one machine need two names.
    cookie: String,
}

struct Token {
    name: Arc<str>,
    /// SHA-256: compared in constant time whatever the length of what is presented.
    digest: Vec<u8>,
}

/// Why a request is not for us to answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Host,
    CrossSite,
    NoToken,
    BadToken,
    /// Too many wrong tokens from there; when to come again.
    Throttled(Duration),
    NoHeader,
}

impl Guard {
    /// `port` is that of the listener.
    #[must_use]
    pub fn new(config: &config::Admin, port: u16) -> Self {
        let tokens = config.tokens.iter().map(|token| Token {
            name: token.name.as_str().into(),
            digest: sha256(token.secret.expose_secret().as_bytes()),
        });
        Self {
            hosts: config.hosts.clone(),
            tokens: tokens.collect(),
            failures: Failures::default(),
            sessions: Sessions::new(config.session_ttl),
            cookie: format!("conclave_admin_{port}"),
        }
    }

    /// Steps 1 and, for what changes something, 3 as far as the browser says where it comes from.
    ///
    /// # Errors
    /// [`Refused::Host`], [`Refused::CrossSite`].
    pub fn check_origin(&self, parts: &Parts, ends: Ends) -> Result<(), Refused> {
        let host = one(&parts.headers, header::HOST.as_str()).ok_or(Refused::Host)?;
        let target = parts.uri.authority().map(axum::http::uri::Authority::as_str);
        if !self.is_ours(host, ends) || target.is_some_and(|target| !self.is_ours(target, ends)) {
            return Err(Refused::Host);
        }
        // A link from a dashboard may lead to the page; nothing else may come from elsewhere.
        let is_visit = parts.method == Method::GET && !parts.uri.path().starts_with("/api/");
        if !is_visit && comes_from_elsewhere(&parts.headers, host) {
            return Err(Refused::CrossSite);
        }
        Ok(())
    }

    /// Steps 2 and 3.
    ///
    /// # Errors
    /// Whatever is missing.
    pub fn admit(&self, parts: &Parts, ends: Ends, now: Instant) -> Result<Caller, Refused> {
        let address = ends.peer.ip();
        let name = match parts.headers.get(header::AUTHORIZATION) {
            Some(_) => {
                let token = one(&parts.headers, header::AUTHORIZATION.as_str()).and_then(bearer);
                self.try_token(token.ok_or(Refused::NoToken)?, address, "bearer", now)?
            }
            None => {
                let value = self.cookie_of(&parts.headers).ok_or(Refused::NoToken)?;
                self.sessions.name_of(value, now).ok_or(Refused::NoToken)?
            }
        };
        let is_change = !matches!(parts.method, Method::GET | Method::HEAD);
        if is_change && one(&parts.headers, CHANGE_HEADER) != Some("1") {
            return Err(Refused::NoHeader);
        }
        Ok(Caller { name, address })
    }

    /// Whose token that is.
    ///
    /// # Errors
    /// [`Refused::BadToken`], [`Refused::Throttled`].
    pub fn try_token(
        &self,
        token: &str,
        address: IpAddr,
        action: &'static str,
        now: Instant,
    ) -> Result<Arc<str>, Refused> {
        self.failures.may_try(address, now).map_err(Refused::Throttled)?;
        let presented = sha256(token.as_bytes());
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.digest.ct_eq(&presented)) {
                found = Some(&known.name);
            }
        }
        found.cloned().ok_or_else(|| {
            self.failures.count(address, now);
            audit::bad_token(address, action);
            Refused::BadToken
        })
    }

    /// The value of our cookie.
    #[must_use]
    pub fn cookie_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let pairs = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        let mut ours = pairs.filter_map(|pair| pair.trim().split_once('=').filter(|(name, _)| *name == self.cookie));
        let (_, value) = ours.next()?;
        // Two are one of ours and one that somebody else planted.
        ours.next().is_none().then_some(value)
    }

    /// What has a browser keep `value` until `max_age` is over. Not `Secure`: this listener speaks plain HTTP, and whoever
    /// puts TLS in front of it speaks with the browser himself.
    #[must_use]
    pub fn set_cookie(&self, value: &str, max_age: Duration) -> Option<HeaderValue> {
        let text = format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
            self.cookie,
            max_age.as_secs()
        );
        let mut cookie = HeaderValue::try_from(text).ok()?;
        cookie.set_sensitive(true);
        Some(cookie)
    }

    fn is_ours(&self, host: &str, ends: Ends) -> bool {
        let host = host.to_ascii_lowercase();
        let name = without_port(&host);
        let is_own_address = || {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            bare.parse() == Ok(ends.local.ip().to_canonical())
        };
        OWN_NAMES.contains(&name) || self.hosts.iter().any(|known| *known == host || *known == name) || is_own_address()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, detail, fix) = match self {
            Self::Host => (
                StatusCode::FORBIDDEN,
                "host",
                "this listener is not known by the name in Host",
                "call it localhost or by its address, or add the name to admin.hosts",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross_site",
                "the request comes from a page of another site",
                "use the operator's page, or a program that is no browser",
            ),
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "token_missing",
                "this needs a token of admin.token_file",
                "send Authorization: Bearer with one, or sign in at / with a browser",
            ),
            Self::BadToken => (
                StatusCode::UNAUTHORIZED,
                "token_wrong",
                "that is no token of admin.token_file",
                "is it that of another node, or was the file changed after the start?",
            ),
            Self::Throttled(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "throttled",
                "too many wrong tokens came from this address: this one was not looked at",
                "come again after Retry-After",
            ),
            Self::NoHeader => (
                StatusCode::FORBIDDEN,
                "header_missing",
                "a change needs the header conclave-admin: 1",
                "send it; it keeps pages of other sites from changing anything with your cookie",
            ),
        };
        let mut response = Problem::new(status, code, detail, fix).into_response();
        if let Self::Throttled(wait) = self {
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            if let Ok(value) = HeaderValue::try_from(format!("{seconds:.0}")) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// The value of a header that is there exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// As the browser says it; whoever is no browser says nothing.
fn comes_from_elsewhere(headers: &HeaderMap, host: &str) -> bool {
    let is_same = |origin: &str| {
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let site_says = headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let origin_says = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !origin.to_str().is_ok_and(is_same));
    site_says || origin_says
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminToken, default_config};
    use axum::http::Request;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn guard() -> Guard {
        let mut config = default_config().admin;
        config.tokens = vec![AdminToken {
            name: "ann".to_owned(),
            secret: TOKEN.into(),
        }];
        config.hosts = vec!["node-1.internal".to_owned(), "proxy:8000".to_owned()];
        Guard::new(&config, 9464)
    }

    fn ends() -> Ends {
        Ends {
            peer: "192.0.2.1:40000".parse().unwrap(),
            local: "10.0.0.7:9464".parse().unwrap(),
        }
    }

    fn parts(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let guard = guard();
        let check = |hosts: &[&str], path: &str| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            guard.check_origin(&parts("GET", path, &headers), ends()).is_ok()
        };
        for host in [
            "localhost:9464",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:9464",
            "[::1]",
            "10.0.0.7:9464",
            "node-1.internal:9464",
            "Node-1.Internal",
            "proxy:8000",
        ] {
            assert!(check(&[host], "/"), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "10.0.0.8:9464",
            "proxy",
            "proxy:8001",
            "",
            "127.0.0.1@evil.example",
            "[::2]",
            "node-1.internal:x",
        ] {
            assert!(!check(&[host], "/"), "{host}");
        }
        assert!(!check(&[], "/"));
        assert!(!check(&["localhost", "localhost"], "/"));
        assert!(!check(&["localhost"], "http://evil.example/"));
    }

    #[test]
    fn pages_of_other_sites_are_turned_away_unless_they_only_link_here() {
        let guard = guard();
        let check = |method: &str, path: &str, name: &str, value: &str| {
            let parts = parts(method, path, &[("host", "localhost:9464"), (name, value)]);
            guard.check_origin(&parts, ends()).is_ok()
        };
        assert!(check("GET", "/", "sec-fetch-site", "cross-site"));
        assert!(!check("GET", "/api/overview", "sec-fetch-site", "same-site"));
        assert!(!check("POST", "/sign-in", "origin", "http://localhost:3000"));
        assert!(!check("POST", "/sign-in", "origin", "null"));
        assert!(!check("POST", "/api/kick", "sec-fetch-site", "cross-site"));
        assert!(check("POST", "/api/kick", "origin", "http://localhost:9464"));
        assert!(check("POST", "/api/kick", "origin", "https://localhost:9464"));
        assert!(check("POST", "/api/kick", "sec-fetch-site", "same-origin"));
        assert!(check("POST", "/api/kick", "accept", "*/*"));
    }

    #[test]
    fn a_token_or_its_cookie_and_the_header_for_changes() {
        let guard = guard();
        let now = Instant::now();
        let admit = |method: &str, headers: &[(&str, &str)]| {
            let admitted = guard.admit(&parts(method, "/api/kick", headers), ends(), now);
            admitted.map(|caller| caller.name.to_string())
        };
        let bearer = format!("Bearer {TOKEN}");
        let good = ("authorization", bearer.as_str());
        assert_eq!(admit("GET", &[good]).unwrap(), "ann");
        assert_eq!(admit("POST", &[good]), Err(Refused::NoHeader));
        assert_eq!(admit("POST", &[good, ("conclave-admin", "0")]), Err(Refused::NoHeader));
        assert_eq!(admit("POST", &[good, ("conclave-admin", "1")]).unwrap(), "ann");
        assert_eq!(admit("DELETE", &[good]), Err(Refused::NoHeader));
        assert_eq!(admit("GET", &[]), Err(Refused::NoToken));
        assert_eq!(admit("GET", &[good, good]), Err(Refused::NoToken));
        assert_eq!(admit("GET", &[("authorization", "Basic YTpi")]), Err(Refused::NoToken));
        assert_eq!(
            admit("GET", &[("authorization", &bearer[..bearer.len() - 1])]),
            Err(Refused::BadToken)
        );
        let value = guard.sessions.begin("ann".into(), now).unwrap();
        let cookie = format!("a=b; conclave_admin_9464={value}");
        assert_eq!(admit("GET", &[("cookie", &cookie)]).unwrap(), "ann");
        assert_eq!(admit("POST", &[("cookie", &cookie)]), Err(Refused::NoHeader));
        // A bad token is not rescued by a good cookie, nor a planted cookie by ours.
        assert_eq!(
            admit("GET", &[("cookie", &cookie), ("authorization", "Bearer x")]),
            Err(Refused::BadToken)
        );
        let twice = format!("conclave_admin_9464=x; {cookie}");
        assert_eq!(admit("GET", &[("cookie", &twice)]), Err(Refused::NoToken));
        let set = guard.set_cookie("v", Duration::from_secs(60)).unwrap();
        assert_eq!(
            set.to_str().unwrap(),
            "conclave_admin_9464=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"
        );
    }

    #[test]
    fn beyond_the_limit_no_guess_is_looked_at_and_who_is_signed_in_goes_on() {
        let guard = guard();
        let now = Instant::now();
        let tried = |token: &str, at: Instant| guard.try_token(token, ends().peer.ip(), "bearer", at);
        let mut wrong = 0;
        while tried("guess", now) == Err(Refused::BadToken) {
            wrong += 1;
        }
        assert_eq!(wrong, 20);
        assert!(matches!(tried(TOKEN, now), Err(Refused::Throttled(_))));
        assert!(tried(TOKEN, now + Duration::from_millis(200)).is_ok());
        let value = guard.sessions.begin("ann".into(), now).unwrap();
        let cookie = format!("conclave_admin_9464={value}");
        assert!(
            guard
                .admit(&parts("GET", "/", &[("cookie", &cookie)]), ends(), now)
                .is_ok()
        );
    }
}
