use super::*;
use proptest::prelude::*;

const PEER: &str = "10.0.0.1:9";

fn trusted() -> Networks {
    Networks {
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        unix: false,
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn client_of(lines: &[(&'static str, &str)]) -> String {
    client(&headers(lines), PEER.parse().unwrap(), &trusted()).to_string()
}

fn check(name: &'static str, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        assert_eq!(client_of(&[(name, value)]), *expected, "{name}: {value}");
    }
}

#[test]
fn the_rightmost_that_is_no_proxy_of_ours_is_the_client() {
    check(
        "x-forwarded-for",
        &[
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1:4711", "192.0.2.1:4711"),
            ("203.0.113.9, 192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1, 10.0.0.7, 10.9.9.9", "192.0.2.1:0"),
            ("10.0.0.7,10.9.9.9", "10.0.0.7:0"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
            ("192.0.2.1, fd00::7", "192.0.2.1:0"),
            (",192.0.2.1, ,", "192.0.2.1:0"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1, ::ffff:10.1.1.1", "192.0.2.1:0"),
        ],
    );
    check(
        "forwarded",
        &[
            ("for=192.0.2.1", "192.0.2.1:0"),
            ("For=\"192.0.2.1:80\"", "192.0.2.1:80"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711"),
            ("for=[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60:0"),
            ("for=203.0.113.9, for=192.0.2.1;host=\"a, b;c\"", "192.0.2.1:0"),
            ("for=192.0.2.1 , for=10.2.2.2", "192.0.2.1:0"),
            (", for=192.0.2.1,, ;", "192.0.2.1:0"),
            ("by=x;proto=https;FOR=192.0.2.1", "192.0.2.1:0"),
            ("for=\"\\1\\9\\2.0.2.1\"", "192.0.2.1:0"),
            ("for=\"192.0.2.1:_port\"", "192.0.2.1:0"),
        ],
    );
}

/// What a hop hides cannot be seen past: the proxy that said so stands for whoever it is.
#[test]
fn hidden_hops_end_the_chain() {
    check(
        "x-forwarded-for",
        &[
            ("192.0.2.1, unknown", PEER),
            ("unknown, 10.0.0.7", "10.0.0.7:0"),
            ("", PEER),
            (",", PEER),
            ("192.0.2.1, x", PEER),
            ("192.0.2.1:", PEER),
            ("192.0.2.1:x", PEER),
            ("192.0.2.1:99999", PEER),
            ("192.0.2.1:080808", PEER),
            ("192.0.2.256", PEER),
            ("010.0.2.1", PEER),
            ("[192.0.2.1]", PEER),
            ("[2001:db8::1", PEER),
            ("[2001:db8::1]x", PEER),
            ("[fe80::1%eth0]", PEER),
            ("\u{e9}", PEER),
        ],
    );
    check(
        "forwarded",
        &[
            ("for=unknown", PEER),
            ("for=_hidden", PEER),
            ("for=\"_x:_y\"", PEER),
            ("proto=https", PEER),
            ("for=192.0.2.1, proto=https", PEER),
            ("for=192.0.2.1, for=_a, for=10.0.0.7", "10.0.0.7:0"),
            ("for=192.0.2.1;for=192.0.2.2", PEER),
            ("for = 192.0.2.1", PEER),
            ("for=", PEER),
            ("=192.0.2.1", PEER),
            ("192.0.2.1", PEER),
        ],
    );
}

/// The client's quote would take what the proxy has written into it.
#[test]
fn a_broken_line_says_nothing() {
    check(
        "forwarded",
        &[
            ("for=\"203.0.113.9, for=192.0.2.1", PEER),
            ("for=\"203.0.113.9\\\", for=192.0.2.1", PEER),
            ("for=203.0.113.9;;=, for=192.0.2.1", PEER),
        ],
    );
    assert_eq!(
        client_of(&[("forwarded", "for=\"203.0.113.9"), ("forwarded", "for=192.0.2.1")]),
        "192.0.2.1:0",
        "a proxy's own line is read for itself"
    );
}

#[test]
fn lines_are_one_list() {
    let lines = [
        ("x-forwarded-for", "203.0.113.9, 192.0.2.1"),
        ("x-forwarded-for", "10.0.0.7"),
    ];
    assert_eq!(client_of(&lines), "192.0.2.1:0");
}

/// A proxy sets one of the two, and passes on what the client put into the other.
#[test]
fn headers_that_disagree_are_not_believed() {
    let both = |one, other| client_of(&[("x-forwarded-for", one), ("forwarded", other)]);
    assert_eq!(both("192.0.2.1", "for=192.0.2.1"), "192.0.2.1:0");
    assert_eq!(both("192.0.2.1", "for=203.0.113.9"), PEER);
    assert_eq!(both("192.0.2.1", "for=_hidden"), PEER);
}

#[test]
fn a_chain_is_not_followed_for_ever() {
    let chain = vec!["10.0.0.2"; 5_000].join(",");
    assert_eq!(
        client_of(&[("x-forwarded-for", &format!("192.0.2.1,{chain}"))]),
        "10.0.0.2:0"
    );
}

fn stranger() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()).to_canonical());
    prop_oneof![v4, v6].prop_filter("no proxy", |address| !trusted().trust(Some(*address)))
}

fn proxies() -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4((bits & 0x00ff_ffff | 0x0a00_0000).into()));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6((bits >> 8 | 0xfd << 120).into()));
    proptest::collection::vec(prop_oneof![v4, v6], 0..5)
}

fn quoted(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("for={v4};proto=https"),
        IpAddr::V6(v6) => format!("for=\"[{v6}]:443\""),
    }
}

proptest! {
    /// Whatever a client sends, what our proxies add behind it is what counts.
    #[test]
    fn nobody_speaks_over_our_proxies(
        claim in "[ -~]{0,80}",
        client in stranger(),
        proxies in proxies(),
    ) {
        let chain: Vec<_> = std::iter::once(client).chain(proxies).collect();
        let plain = chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let found = client_of(&[("x-forwarded-for", &format!("{claim}, {plain}"))]);
        prop_assert_eq!(found, SocketAddr::new(client, 0).to_string());
        // In a line of its own; in the same one a broken claim makes the whole line say nothing.
        let elements = chain.iter().map(quoted).collect::<Vec<_>>().join(", ");
        let lines = [("forwarded", claim.as_str()), ("forwarded", elements.as_str())];
        let found: SocketAddr = client_of(&lines).parse().unwrap();
        prop_assert_eq!(found.ip(), client);
        let found: SocketAddr = client_of(&[("forwarded", &format!("{claim}, {elements}"))]).parse().unwrap();
        prop_assert!(found.ip() == client || found.to_string() == PEER, "{}", found);
    }

    /// Whatever comes, it is read to an end.
    #[test]
    fn any_bytes_are_read(
        one in proptest::collection::vec(any::<u8>(), 0..200),
        other in "(for=|\"|\\[|\\]|,|;|=|\\\\|[0-9.:a-f]|_){0,60}",
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&one) {
            headers.append(X_FORWARDED_FOR.clone(), value.clone());
            headers.append(FORWARDED, value);
        }
        headers.append(FORWARDED, HeaderValue::from_str(&other).unwrap());
        let _ = client(&headers, PEER.parse().unwrap(), &trusted());
    }
}
