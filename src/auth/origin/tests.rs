//! Foreign pages and their tricks.

use ::http::Request;

use super::*;

const ALLOW: &[&str] = &[
    "https://app.example.com",
    "https://*.example.org",
    "http://*.localhost:3000",
    "capacitor://localhost",
    "https://[2001:db8::1]:8443",
];

fn allow(entries: &[&str]) -> Result<Allow, Vec<String>> {
    parse_allow(&entries.iter().map(std::string::ToString::to_string).collect::<Vec<_>>())
}

fn judge(allow: &Allow, uri: &str, headers: &[(&str, &str)]) -> Result<OriginVerdict, Foreign> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    allow.judge(&parts, &|host| {
        ["chat.example.net", "localhost", "127.0.0.1", "::1"].contains(&host)
    })
}

#[test]
fn listed_and_foreign() {
    use OriginVerdict::{Listed, Wildcard};
    let list = allow(ALLOW).unwrap();
    let check = |origin: &str, expected| {
        assert_eq!(
            judge(&list, "/ws", &[("host", "chat.example.net"), ("origin", origin)]),
            expected,
            "{origin}"
        );
    };
    for (origin, verdict) in [
        ("https://app.example.com", Listed),
        ("https://app.example.com:443", Listed),
        ("HTTPS://APP.Example.COM", Listed),
        ("https://a.example.org", Wildcard),
        ("https://A.EXAMPLE.ORG:443", Wildcard),
        ("http://a.localhost:3000", Wildcard),
        ("capacitor://localhost", Listed),
        ("https://[2001:db8::1]:8443", Listed),
    ] {
        check(origin, Ok(verdict));
    }
    for origin in [
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.evil.net",
        "https://evilapp.example.com",
        "https://app.example.com.",
        "https://example.com",
        "https://example.org",
        "https://a.b.example.org",
        "https://evilexample.org",
        "https://a.example.org.evil.net",
        "https://a.example.org:8443",
        "http://a.example.org",
        "https://evil.net",
        "http://localhost:3000",
        "http://a.localhost",
        "https://[2001:db8::2]:8443",
        "https://xn--app-example.com",
    ] {
        let expected = if origin.ends_with('.') {
            Foreign::Malformed
        } else {
            Foreign::NotListed
        };
        check(origin, Err(expected));
    }
    for origin in [
        "",
        "*",
        "NULL://",
        "https://app.example.com/",
        "https://app.example.com/x",
        "https://app.example.com?",
        "https://app.example.com#",
        "https://user@app.example.com",
        "https://evil.net@app.example.com",
        "https://app.example.com evil",
        "https://app.example.com, https://app.example.com",
        "https://app.example.com:",
        "https://app.example.com:+443",
        "https://app.example.com:99999",
        "https://app.example.com:443:443",
        "https://.example.org",
        "https://*.example.org",
        "https://evil.net/.example.org",
        "https://evil.net\\.example.org",
        "https://evil%2eexample.org",
        "https:app.example.com",
        "https:///app.example.com",
        "//app.example.com",
        "app.example.com",
        "1https://app.example.com",
        "https://[::1",
        "https://[app.example.com]",
    ] {
        check(origin, Err(Foreign::Malformed));
    }
    check("null", Err(Foreign::Null));
    let twice = [
        ("origin", "https://app.example.com"),
        ("origin", "https://app.example.com"),
    ];
    assert_eq!(judge(&list, "/ws", &twice), Err(Foreign::Twice));
    let request = Request::builder()
        .header("origin", b"https://\xffapp".as_slice())
        .body(())
        .unwrap();
    assert_eq!(list.judge(&request.into_parts().0, &|_| true), Err(Foreign::Malformed));
    assert_eq!(judge(&list, "/ws", &[]), Ok(OriginVerdict::Absent));
}

#[test]
fn same_origin_needs_a_host_that_is_ours() {
    let list = allow(&[]).unwrap();
    let same = |uri, headers: &[(&str, &str)]| judge(&list, uri, headers) == Ok(OriginVerdict::SameOrigin);
    assert!(same(
        "/",
        &[("host", "chat.example.net"), ("origin", "https://chat.example.net")]
    ));
    assert!(same(
        "/",
        &[("host", "CHAT.example.net:443"), ("origin", "https://chat.example.net")]
    ));
    assert!(same(
        "/",
        &[("host", "localhost:8443"), ("origin", "https://localhost:8443")]
    ));
    assert!(same("/", &[("host", "[::1]:8443"), ("origin", "https://[::1]:8443")]));
    assert!(same("https://localhost:8443/", &[("origin", "https://localhost:8443")]));
    assert!(same(
        "https://localhost:8443/",
        &[("host", "localhost:8443"), ("origin", "https://localhost:8443")]
    ));
    // Rebinding: both agree, and neither is ours.
    assert!(!same("/", &[("host", "evil.net"), ("origin", "https://evil.net")]));
    assert!(!same(
        "/",
        &[("host", "localhost:8443"), ("origin", "http://localhost:8443")]
    ));
    assert!(!same(
        "/",
        &[("host", "localhost:8443"), ("origin", "https://localhost:9000")]
    ));
    assert!(!same(
        "/",
        &[
            ("host", "localhost"),
            ("host", "localhost"),
            ("origin", "https://localhost")
        ]
    ));
    assert!(!same(
        "https://localhost/",
        &[("host", "127.0.0.1"), ("origin", "https://localhost")]
    ));
    assert!(!same("/", &[("host", "localhost/x"), ("origin", "https://localhost")]));
    assert!(!same(
        "/",
        &[("host", "evil.net@localhost"), ("origin", "https://localhost")]
    ));
    assert!(!same("/", &[("host", ""), ("origin", "https://localhost")]));
    assert!(!same("/", &[("origin", "https://localhost")]));
}

#[test]
fn only_named_origins_may_use_a_cookie() {
    let list = allow(&["*", "https://*.example.org", "https://app.example.com"]).unwrap();
    let cookie =
        |origin| judge(&list, "/", &[("host", "localhost"), ("origin", origin)]).map(OriginVerdict::allows_cookie);
    assert_eq!(cookie("https://anyone.net"), Ok(false));
    assert_eq!(cookie("https://a.example.org"), Ok(false));
    assert_eq!(cookie("https://app.example.com"), Ok(true));
    assert_eq!(cookie("https://localhost"), Ok(true));
    assert!(!OriginVerdict::Absent.allows_cookie());
    assert_eq!(judge(&list, "/", &[("origin", "null")]), Err(Foreign::Null));
}

#[test]
fn bad_entries_are_all_named() {
    let bad = [
        "",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/x",
        "https://*",
        "https://*.com",
        "https://*.com:8443",
        "https://a.*.example.com",
        "https://*a.example.com",
        "https://*.*.example.com",
        "*.example.com",
        "**",
        "null",
        "https://münchen.example",
        "https://app.example.com:0x1bb",
        "https://*.[::1]",
        "https://",
        "*://example.com",
    ];
    let problems = allow(&bad).unwrap_err();
    assert_eq!(problems.len(), bad.len(), "{problems:#?}");
    assert!(problems[1].starts_with("\"app.example.com\" is not an origin"));
    assert!(allow(ALLOW).is_ok() && allow(&["*"]).is_ok());
}
