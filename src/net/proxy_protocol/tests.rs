use tokio::io::AsyncWriteExt as _;

use super::*;

const V4_LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";

/// A version 2 header with these bytes behind its prefix.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("16 bits");
    [V2_SIGNATURE, &[command, family], &length.to_be_bytes(), rest].concat()
}

/// 192.0.2.1:56324 to 198.51.100.1:443.
fn v4_addresses() -> Vec<u8> {
    [
        &[192, 0, 2, 1, 198, 51, 100, 1][..],
        &56324_u16.to_be_bytes(),
        &443_u16.to_be_bytes(),
    ]
    .concat()
}

/// 2001:db8::1, port 56324, to 2001:db8::2, port 443.
fn v6_addresses() -> Vec<u8> {
    let [source, destination]: [Ipv6Addr; 2] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
    [
        &source.octets()[..],
        &destination.octets(),
        &56324_u16.to_be_bytes(),
        &443_u16.to_be_bytes(),
    ]
    .concat()
}

/// Good headers, each with its source.
fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let v4 = Some("192.0.2.1:56324");
    let v6 = Some("[2001:db8::1]:56324");
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest_unknown = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(longest_unknown.len(), LINE_BYTES_MAX);
    // PP2_TYPE_AUTHORITY, as balancers send it.
    let extension = b"\x02\x00\x0bexample.com";
    vec![
        (V4_LINE.to_vec(), v4),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec(), v6),
        (
            b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n".to_vec(),
            Some("0.0.0.0:0"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (longest_unknown.into_bytes(), None),
        (binary(0x21, 0x11, &v4_addresses()), v4),
        (binary(0x21, 0x21, &v6_addresses()), v6),
        (binary(0x21, 0x11, &[&v4_addresses()[..], extension].concat()), v4),
        (
            binary(0x21, 0x21, &[&v6_addresses()[..], &[0; REST_BYTES_MAX - 36]].concat()),
            v6,
        ),
        // LOCAL ignores the family and skips what follows.
        (binary(0x20, 0x00, b""), None),
        (binary(0x20, 0x11, &v4_addresses()), None),
        (binary(0x20, 0xff, extension), None),
        // UNSPEC, datagrams, unix sockets.
        (binary(0x21, 0x00, extension), None),
        (binary(0x21, 0x12, &v4_addresses()), None),
        (binary(0x21, 0x22, &v6_addresses()), None),
        (binary(0x21, 0x31, &[0; 216]), None),
    ]
}

#[test]
fn good_headers_are_read_wherever_they_are_cut() {
    for (bytes, source) in good() {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} bytes of {bytes:02x?}");
        }
        let header = Header {
            source: source.map(|text| text.parse().unwrap()),
            length: bytes.len(),
        };
        let followed = [&bytes[..], b"\x16\x03\x01\n"].concat();
        for whole in [&bytes, &followed] {
            assert_eq!(parse(whole), Ok(Some(header)), "{whole:02x?}");
        }
    }
}

#[tokio::test]
async fn what_follows_is_the_clients() {
    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00";
    for (bytes, source) in good() {
        let whole = [&bytes[..], HELLO].concat();
        let source = source.map(|text| text.parse().unwrap());
        assert_eq!(read(&mut &whole[..]).await.unwrap(), (source, HELLO.to_vec()));
        // A pipe that has room for one byte: every read ends after one.
        let (mut theirs, mut ours) = tokio::io::duplex(1);
        let (written, heard) = tokio::join!(theirs.write_all(&bytes), read(&mut ours));
        written.unwrap();
        assert_eq!(heard.unwrap(), (source, Vec::new()));
    }
}

#[tokio::test]
async fn who_leaves_early_is_not_malformed() {
    for (bytes, _) in good() {
        for cut in [0, 1, 5, bytes.len() - 1] {
            let error = read(&mut &bytes[..cut]).await.unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::UnexpectedEof,
                "{cut} bytes of {bytes:02x?}"
            );
        }
    }
}

#[test]
fn what_cannot_become_a_header_is_missing_one() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"proxy TCP4 ",
        b"PROXY\tTCP4",
        b"PROXY\r\n",
        b" PROXY TCP4",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\n\r",
        b"\0",
    ] {
        assert_eq!(parse(bytes), Err(Malformed::Missing), "{}", bytes.escape_ascii());
    }
}

#[test]
fn broken_lines_are_refused() {
    for line in [
        "TCP4 192.0.2.1 198.51.100.1 56324 443\n",
        "TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "TCP4 192.0.2.1 198.51.100.1\r\n",
        "TCP4\r\n",
        "\r\n",
        "TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
        "TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
        "TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
        "TCP4 192.0.2.1 198.51.100.1 56324 443\r\r\n",
        "TCP4 192.0.2.1 198.51.100.1 +6324 443\r\n",
        "TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
        "TCP4 192.0.2.1 198.51.100.1 00 443\r\n",
        "TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
        "TCP4 192.0.2.1 198.51.100.1  443\r\n",
        "TCP4 192.0.2.1 198.51.100.1 56324 -1\r\n",
        "TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
        "TCP4 192.0.2.01 198.51.100.1 56324 443\r\n",
        "TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
        "TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
        "TCP6 2001:db8::1 198.51.100.1 56324 443\r\n",
        "TCP6 fe80::1%eth0 fe80::2 56324 443\r\n",
        "TCP6 [2001:db8::1] [2001:db8::2] 56324 443\r\n",
        "UDP4 192.0.2.1 198.51.100.1 56324 443\r\n",
        "tcp4 192.0.2.1 198.51.100.1 56324 443\r\n",
        "UNKNOWN\n",
        "UNKNOWN2\r\n",
    ] {
        assert_eq!(
            parse(format!("PROXY {line}").as_bytes()),
            Err(Malformed::Broken),
            "{line:?}"
        );
    }
    assert_eq!(parse(b"PROXY UNKNOWN \xff\r\n"), Err(Malformed::Broken));
}

#[test]
fn unexpected_versions_commands_and_families_are_refused() {
    for (command, family) in [
        (0x01, 0x11),
        (0x11, 0x11),
        (0x31, 0x11),
        (0x22, 0x11),
        (0x2f, 0x11),
        (0x21, 0x01),
        (0x21, 0x10),
        (0x21, 0x13),
        (0x21, 0x41),
        (0x21, 0xff),
    ] {
        let bytes = binary(command, family, &v6_addresses());
        assert_eq!(parse(&bytes), Err(Malformed::Broken), "{command:02x} {family:02x}");
    }
    for (family, addresses) in [(0x11, v4_addresses()), (0x21, v6_addresses())] {
        for bytes in 0..addresses.len() {
            let short = binary(0x21, family, &addresses[..bytes]);
            assert_eq!(parse(&short), Err(Malformed::Broken), "{bytes} bytes of addresses");
        }
    }
}

#[test]
fn the_length_is_bounded() {
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    assert_eq!(parse(&endless[..LINE_BYTES_MAX - 1]), Ok(None));
    assert_eq!(parse(&endless[..LINE_BYTES_MAX]), Err(Malformed::TooLong));
    let late = [&endless[..LINE_BYTES_MAX - 1], b"\r\n"].concat();
    assert_eq!(parse(&late), Err(Malformed::TooLong), "108 bytes");
    // The prefix alone decides: nobody waits for what it announces.
    let long = binary(0x21, 0x11, &[0; REST_BYTES_MAX + 1]);
    assert_eq!(parse(&long[..PREFIX_BYTES]), Err(Malformed::TooLong));
    assert_eq!(parse(&long), Err(Malformed::TooLong));
}

proptest::proptest! {
    #[test]
    fn any_bytes_get_one_verdict(start in 0_usize..3, bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let bytes = [[&b""[..], V1_START, V2_SIGNATURE][start], &bytes].concat();
        let mut verdict = Ok(None);
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            assert!(verdict == Ok(None) || verdict == now, "{verdict:?} became {now:?}");
            verdict = now;
        }
    }
}
