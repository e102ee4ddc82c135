//! A URL that the operator wrote.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::Rule;

/// Longest URL.
const URL_BYTES_MAX: usize = 2048;

/// Where to call: `http` or `https`, without credentials and fragment. Its `Debug` and `Display` leave path and query
/// out: some write secrets there.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    /// The host, where it is an address.
    literal: Option<IpAddr>,
}

impl Target {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URL_BYTES_MAX {
            return Err(format!("a URL of more than {URL_BYTES_MAX} bytes"));
        }
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("a URL that begins with neither https:// nor http://".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL with a user name or a password".into());
        }
        if url.fragment().is_some() {
            return Err("a URL with a fragment (#)".into());
        }
        // Forms such as 0x7f.1 and 2130706433 are addresses by now.
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or("a URL without a host")?;
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        Ok(Self { url, literal })
    }

    /// Whether the host is an address that nobody may be called at.
    ///
    /// # Errors
    /// What is there, as a sentence with its remedy.
    pub fn check(&self, rule: &Rule) -> Result<(), String> {
        match self.literal.map(|address| (address, rule.check_literal(address))) {
            Some((address, Err(class))) => Err(format!(
                "{address} is not called ({}); if it must be, list its network in outbound.networks",
                class.as_str()
            )),
            _ => Ok(()),
        }
    }

    /// Whether it is spoken in the clear.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// Whether the host is this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match self.literal {
            Some(address) => address.to_canonical().is_loopback(),
            None => {
                let host = self.host();
                let host = host.strip_suffix('.').unwrap_or(host);
                host == "localhost" || host.ends_with(".localhost")
            }
        }
    }

    /// Name or address, in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The URL with another path and query, where there is one: `/user?id=7`.
    pub(super) fn url(&self, path_and_query: Option<&str>) -> Url {
        let mut url = self.url.clone();
        if let Some(text) = path_and_query {
            let (path, query) = text
                .split_once('?')
                .map_or((text, None), |(path, query)| (path, Some(query)));
            url.set_path(path);
            url.set_query(query);
        }
        url
    }
}

/// `https://login.example.com:8443`
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.host())?;
        self.url.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_are_known_in_whatever_form_they_are_written() {
        for (text, address) in [
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://0x7f.1/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://017700000001/", "127.0.0.1"),
            ("http://127.1:80/", "127.0.0.1"),
            ("https://[::ffff:7f00:1]/", "::ffff:127.0.0.1"),
            ("http://2852039166/latest/meta-data", "169.254.169.254"),
            ("http://0xa9fea9fe/", "169.254.169.254"),
            ("http://[64:ff9b::a9fe:a9fe]/", "64:ff9b::a9fe:a9fe"),
            // Full-width digits and dots.
            ("http://１２７。0。0。1/", "127.0.0.1"),
        ] {
            assert_eq!(target(text).literal, Some(address.parse().unwrap()), "{text}");
        }
        for text in ["https://localhost/", "https://127.0.0.1.example.com/"] {
            assert_eq!(target(text).literal, None, "{text}");
        }
    }

    #[test]
    fn what_nobody_should_call_is_refused_with_a_remedy() {
        let rule = Rule::default();
        for text in [
            "http://2852039166/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://0/",
            "http://[ff02::1]/",
        ] {
            let error = target(text).check(&rule).expect_err(text);
            assert!(error.contains("outbound.networks"), "{error}");
        }
        for text in [
            "http://127.0.0.1:3000/",
            "https://login.example.com/",
            "http://10.0.0.7/",
        ] {
            assert_eq!(target(text).check(&rule), Ok(()), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_showing_them() {
        for text in [
            "",
            "login.example.com",
            "/jwks",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "https://",
            "https://user:hunter2@example.com/",
            "https://hunter2@example.com/",
            "https://example.com/#hunter2",
            "https://exa mple.com/",
            "https://[::1/",
            "https://example.com:99999/",
            &format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX)),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn neither_form_for_people_shows_path_or_query() {
        let target = target("https://Login.example.com:8443/keys?secret=hunter2");
        assert_eq!(target.to_string(), "https://login.example.com:8443");
        assert_eq!(format!("{target:?}"), "Target(https://login.example.com:8443)");
    }

    #[test]
    fn another_path_never_leads_to_another_host() {
        let target = target("https://a.example/x?y=1");
        for (path, url) in [
            (None, "https://a.example/x?y=1"),
            (Some("/user?id=7"), "https://a.example/user?id=7"),
            (Some("//evil.example/"), "https://a.example//evil.example/"),
            (Some("@evil.example/"), "https://a.example/@evil.example/"),
            (Some("https://evil.example/"), "https://a.example/https://evil.example/"),
            (Some("\\\\evil.example"), "https://a.example//evil.example"),
            (Some("/a#b"), "https://a.example/a%23b"),
        ] {
            assert_eq!(target.url(path).as_str(), url);
        }
    }

    #[test]
    fn this_machine_is_known() {
        for text in [
            "http://localhost/",
            "http://LOCALHOST.:1/",
            "http://a.localhost/",
            "http://[::1]/",
            "http://127.9/",
        ] {
            assert!(target(text).is_here(), "{text}");
        }
        for text in ["http://localhost.example/", "http://10.0.0.1/", "http://notlocalhost/"] {
            assert!(!target(text).is_here(), "{text}");
        }
    }
}
