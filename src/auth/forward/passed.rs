//! Which of a request's cookies and headers the application is shown. Pure.

use ::http::header::{AUTHORIZATION, COOKIE};
use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config;

/// Every cookie but our own.
const ALL: &str = "*";

/// What is picked.
#[derive(Debug)]
pub(super) struct Passed {
    cookies: Cookies,
    headers: Vec<HeaderName>,
}

#[derive(Debug)]
enum Cookies {
    /// All but the one that may carry a token.
    AllBut(String),
    Named(Vec<String>),
}

impl Passed {
    /// `ours` is the cookie that may carry a token.
    pub fn new(config: &config::Forward, ours: &str) -> Self {
        let cookies = if config.cookies.iter().any(|name| name == ALL) {
            Cookies::AllBut(ours.to_owned())
        } else {
            Cookies::Named(config.cookies.clone())
        };
        let headers = config.headers.iter().filter_map(|name| name.parse().ok());
        Self {
            cookies,
            headers: headers.collect(),
        }
    }

    /// What is picked of `shown`; none if there is nothing. As it came: only the application knows what is in it.
    pub fn of(&self, shown: &HeaderMap) -> Option<HeaderMap> {
        let mut picked = HeaderMap::new();
        if let Some(cookie) = self.cookie(shown) {
            picked.insert(COOKIE, cookie);
        }
        for name in &self.headers {
            for value in shown.get_all(name).iter().filter(|value| !is_bearer(name, value)) {
                let mut value = value.clone();
                value.set_sensitive(true);
                picked.append(name, value);
            }
        }
        (!picked.is_empty()).then_some(picked)
    }

    /// One header, whether they came in one or (HTTP/2) in several.
    fn cookie(&self, shown: &HeaderMap) -> Option<HeaderValue> {
        let pairs = shown
            .get_all(COOKIE)
            .iter()
            .flat_map(|header| header.as_bytes().split(|byte| *byte == b';'))
            .map(<[u8]>::trim_ascii);
        let mut picked = Vec::new();
        for pair in pairs.filter(|pair| self.picks(pair)) {
            if !picked.is_empty() {
                picked.extend_from_slice(b"; ");
            }
            picked.extend_from_slice(pair);
        }
        if picked.is_empty() {
            return None;
        }
        // Bytes that a header had are bytes that a header may have.
        let mut cookie = HeaderValue::from_bytes(&picked).ok()?;
        // Keeps it out of Debug output, and out of HTTP/2's table.
        cookie.set_sensitive(true);
        Some(cookie)
    }

    fn picks(&self, pair: &[u8]) -> bool {
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let name = pair[..equals].trim_ascii();
        match &self.cookies {
            Cookies::AllBut(ours) => !name.is_empty() && name != ours.as_bytes(),
            Cookies::Named(names) => names.iter().any(|known| known.as_bytes() == name),
        }
    }
}

/// A token of ours, which was judged already and is for nobody else.
fn is_bearer(name: &HeaderName, value: &HeaderValue) -> bool {
    let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
    name == AUTHORIZATION && scheme.eq_ignore_ascii_case(b"bearer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_config;

    fn passed(cookies: &[&str], headers: &[&str]) -> Passed {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let config = config::Forward {
            cookies: own(cookies),
            headers: own(headers),
            ..default_config().auth.forward
        };
        Passed::new(&config, "conclave_token")
    }

    fn shown(headers: &[(&str, &[u8])]) -> HeaderMap {
        let mut shown = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            shown.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        shown
    }

    fn check(passed: &Passed, headers: &[(&str, &[u8])], expected: &[(&str, &[u8])]) {
        let picked = passed.of(&shown(headers)).unwrap_or_default();
        let pairs: Vec<(&str, &[u8])> = picked
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(pairs, expected, "{headers:?}");
    }

    #[test]
    fn all_cookies_but_our_own() {
        let all = passed(&["*"], &[]);
        check(
            &all,
            &[("cookie", b"sid=1;conclave_token=x; a=b=c ;; =n;bare;sid.sig=\"\xff\"")],
            &[("cookie", b"sid=1; a=b=c; sid.sig=\"\xff\"")],
        );
        check(
            &all,
            &[("cookie", b"a=1"), ("cookie", b"b=2"), ("x-session", b"s")],
            &[("cookie", b"a=1; b=2")],
        );
        check(&all, &[("cookie", b"conclave_token=x")], &[]);
        check(&all, &[("cookie", b""), ("authorization", b"Basic eA==")], &[]);
        check(&all, &[], &[]);
    }

    #[test]
    fn only_those_that_are_named() {
        let named = passed(&["sid", "sid.sig"], &[]);
        check(
            &named,
            &[("cookie", b"sid=1; sid2=2; Sid=3; sid =4; sid.sig=5")],
            &[("cookie", b"sid=1; sid =4; sid.sig=5")],
        );
        check(&named, &[("cookie", b"other=1")], &[]);
        let none = passed(&[], &["X-Session"]);
        check(
            &none,
            &[("cookie", b"sid=1"), ("x-session", b"s")],
            &[("x-session", b"s")],
        );
    }

    #[test]
    fn headers_that_are_named_and_never_a_token_of_ours() {
        let picks = passed(&["sid"], &["X-Session", "Authorization"]);
        check(
            &picks,
            &[
                ("x-session", b"a"),
                ("x-session", b"b"),
                ("x-other", b"c"),
                ("authorization", b"Basic eA=="),
            ],
            &[
                ("x-session", b"a"),
                ("x-session", b"b"),
                ("authorization", b"Basic eA=="),
            ],
        );
        check(&picks, &[("authorization", b"bearer x.y.z")], &[]);
    }

    #[test]
    fn nothing_prints_them() {
        let picked =
            passed(&["*"], &["x-session"]).of(&shown(&[("cookie", b"sid=hunter2"), ("x-session", b"hunter2")]));
        assert!(!format!("{picked:?}").contains("hunter2"));
    }
}
