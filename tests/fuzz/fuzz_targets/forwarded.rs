//! What a proxy of ours adds behind whatever a client has sent is what counts, or nothing does; nothing panics.
#![no_main]

use conclave::config::Networks;
use conclave::net::forwarded::client;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let trusted = Networks {
        networks: vec!["10.0.0.0/8".parse().expect("a network")],
        unix: false,
    };
    let peer = "10.0.0.1:9".parse().expect("an address");
    let x_forwarded_for = HeaderName::from_static("x-forwarded-for");
    for (name, theirs) in [(x_forwarded_for, &b"192.0.2.1"[..]), (FORWARDED, &b"for=192.0.2.1"[..])] {
        let Ok(claim) = HeaderValue::from_bytes(data) else { continue };
        let Ok(one_line) = HeaderValue::from_bytes(&[data, b", ", theirs].concat()) else { continue };
        let mut headers = HeaderMap::new();
        headers.append(&name, one_line);
        let found = client(&headers, peer, &trusted);
        assert!(found == peer || found.to_string() == "192.0.2.1:0", "{found}");
        let mut headers = HeaderMap::new();
        headers.append(&name, claim);
        headers.append(&name, HeaderValue::from_bytes(theirs).expect("a value"));
        assert_eq!(client(&headers, peer, &trusted).to_string(), "192.0.2.1:0");
    }
});
