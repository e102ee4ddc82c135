use super::*;
use http::Request;

const GOOD: &[(&str, &str)] = &[
    ("host", "server.example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

fn parts(method: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/ws").version(version);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn get(headers: &[(&str, &str)]) -> Result<Handshake, Refused> {
    check(&parts("GET", Version::HTTP_11, headers))
}

/// `GOOD` with every header of that name replaced by `values`.
fn with<'a>(name: &'a str, values: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let others = GOOD.iter().copied().filter(|(other, _)| *other != name);
    others.chain(values.iter().map(|value| (name, *value))).collect()
}

fn check_header(name: &str, values: &[&str], expected: Result<(), Refused>) {
    assert_eq!(get(&with(name, values)).map(drop), expected, "{name}: {values:?}");
}

/// The example of RFC 6455 section 1.3.
#[test]
fn the_key_of_the_rfc_gives_its_accept() {
    let handshake = get(GOOD).unwrap();
    assert_eq!(
        handshake,
        Handshake::Http1 {
            accept: HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        }
    );

    let response = response(handshake, &HeaderMap::new());
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["connection"], "upgrade");
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(
        response.headers()["sec-websocket-accept"],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(response.headers().len(), 3);
}

#[test]
fn connection_and_upgrade_are_lists_in_any_case() {
    check_header("connection", &["keep-alive, Upgrade"], Ok(()));
    check_header("connection", &["keep-alive", "UPGRADE"], Ok(()));
    check_header("connection", &["upgrade,"], Ok(()));
    check_header("upgrade", &["WebSocket"], Ok(()));
    check_header("upgrade", &["h2c, websocket"], Ok(()));

    let no = Err(Refused::NotAnUpgrade);
    check_header("connection", &[], no);
    check_header("connection", &["keep-alive"], no);
    check_header("connection", &["upgraded"], no);
    check_header("upgrade", &[], no);
    check_header("upgrade", &["h2c"], no);
    check_header("upgrade", &["websocket2"], no);
}

#[test]
fn only_version_13_is_spoken() {
    for values in [&[][..], &["8"], &["13, 8"], &["13", "13"], &["013"], &[""]] {
        check_header("sec-websocket-version", values, Err(Refused::Version));
    }
}

#[test]
fn a_key_is_sixteen_bytes_and_comes_once() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for values in [
        &[][..],
        &[""],
        &["dGhlIHNhbXBsZSBub25jZQ"],
        &["dGhlIHNhbXBsZSBub25jZQ=="; 2],
        &["dGhlIHNhbXBsZSBub25jZSE="],
        &["MTIzNDU2Nzg5MDEyMzQ1"],
        &["SGVsbG8sIHdvcmxkIQ=="],
        &["dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="],
        &["not base64 at all !!!!=="],
    ] {
        check_header("sec-websocket-key", values, Err(Refused::Key));
    }
    check_header("sec-websocket-key", &[key], Ok(()));
    // Bits that belong to no byte are set.
    check_header("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZR=="], Ok(()));
}

#[test]
fn a_host_comes_once() {
    check_header("host", &[], Err(Refused::Host));
    check_header("host", &["a.example", "b.example"], Err(Refused::Host));
}

#[test]
fn methods_and_versions_of_http() {
    let http1 = |method, version| check(&parts(method, version, GOOD)).map(drop);
    assert_eq!(http1("GET", Version::HTTP_11), Ok(()));
    assert_eq!(http1("GET", Version::HTTP_10), Err(Refused::NotAnUpgrade));
    assert_eq!(http1("GET", Version::HTTP_2), Err(Refused::NotAnUpgrade));
    for method in ["HEAD", "POST", "OPTIONS", "CONNECT", "get"] {
        assert_eq!(http1(method, Version::HTTP_11), Err(Refused::Method), "{method}");
    }
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    let with = |extra| get(&[GOOD, &[extra]].concat()).map(drop);
    assert_eq!(with(("content-length", "0")), Ok(()));
    assert_eq!(with(("content-length", "5")), Err(Refused::Body));
    assert_eq!(with(("transfer-encoding", "chunked")), Err(Refused::Body));
}

#[test]
fn extended_connect_is_accepted_on_http2() {
    let connect = |protocol: Option<&'static str>, headers| {
        let mut parts = parts("CONNECT", Version::HTTP_2, headers);
        if let Some(protocol) = protocol {
            parts.extensions.insert(Protocol::from_static(protocol));
        }
        check(&parts)
    };
    assert_eq!(connect(Some("websocket"), &[]), Ok(Handshake::Http2));
    assert_eq!(
        connect(Some("websocket"), &[("sec-websocket-version", "13")]),
        Ok(Handshake::Http2)
    );
    assert_eq!(
        connect(Some("websocket"), &[("sec-websocket-version", "8")]),
        Err(Refused::Version)
    );
    assert_eq!(connect(Some("connect-udp"), &[]), Err(Refused::OtherProtocol));
    assert_eq!(connect(None, &[]), Err(Refused::OtherProtocol));

    let response = response(Handshake::Http2, &HeaderMap::new());
    assert_eq!(response.status(), 200);
    assert!(response.headers().is_empty());
}

#[test]
fn only_our_subprotocol_is_echoed() {
    let offered = |values: &[&str]| {
        let parts = parts("GET", Version::HTTP_11, &with("sec-websocket-protocol", values));
        let answer = response(check(&parts).unwrap(), &parts.headers);
        assert_eq!(
            answer
                .headers()
                .get("sec-websocket-protocol")
                .map(|value| value.to_str().unwrap()),
            subprotocol(&parts.headers)
        );
        subprotocol(&parts.headers)
    };
    assert_eq!(offered(&["conclave.v1"]), Some("conclave.v1"));
    assert_eq!(offered(&["chat, conclave.v1"]), Some("conclave.v1"));
    assert_eq!(offered(&["chat", "conclave.v1"]), Some("conclave.v1"));
    assert_eq!(offered(&["conclave.v2, CONCLAVE.V1"]), None);
    assert_eq!(offered(&[]), None);
}

#[test]
fn a_refusal_says_what_would_work() {
    assert_eq!(Refused::Method.status(), 405);
    assert_eq!(Refused::Method.headers()["allow"], "GET");
    for refused in [Refused::NotAnUpgrade, Refused::Version] {
        assert_eq!(refused.status(), 426);
        assert_eq!(refused.headers()["sec-websocket-version"], "13");
        assert_eq!(refused.headers()["upgrade"], "websocket");
    }
    assert_eq!(Refused::Key.status(), 400);
}
