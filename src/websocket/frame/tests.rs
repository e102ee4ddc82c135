use super::*;

fn written(opcode: Opcode, payload_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(&mut out, opcode, payload_len);
    out
}

#[test]
fn headers_use_the_shortest_length() {
    for (payload_len, expected) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (256, &[0x82, 126, 1, 0]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        assert_eq!(written(Opcode::Binary, payload_len), expected, "{payload_len}");
    }
}

/// RFC 6455 section 5.7.
#[test]
fn frames_of_the_rfc_are_written() {
    let mut out = Vec::new();
    write_frame(&mut out, Opcode::Text, b"Hello");
    assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    out.clear();
    write_frame(&mut out, Opcode::Ping, b"Hello");
    assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
}

#[test]
fn a_long_close_reason_is_cut_between_characters() {
    assert_eq!(close_frame(1008, "abuse"), b"\x88\x07\x03\xf0abuse");
    assert_eq!(close_frame(1000, ""), [0x88, 2, 0x03, 0xe8]);
    assert_eq!(close_frame(1000, &"a".repeat(124)).len(), 2 + 125);
    let frame = close_frame(1000, &"ü".repeat(62));
    assert_eq!(frame.len(), 2 + 2 + 122);
    assert_eq!(std::str::from_utf8(&frame[4..]), Ok("ü".repeat(61).as_str()));
}

#[test]
fn unmasking_is_the_same_from_every_offset_and_at_every_length() {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    for len in 0..70 {
        for offset in 0..9 {
            let mut payload: Vec<u8> = (0..len).collect();
            let expected: Vec<u8> = payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ mask[(at + offset) % 4])
                .collect();
            unmask(&mut payload, mask, offset);
            assert_eq!(payload, expected, "{len} bytes from {offset}");
        }
    }
}

#[test]
fn a_header_is_none_until_it_is_whole() {
    for (bytes, payload_len) in [
        (&[0x81, 0x85, 1, 2, 3, 4][..], 5),
        (&[0x01, 0xfe, 0, 126, 1, 2, 3, 4], 126),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], 65_536),
        (
            &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
            i64::MAX as u64,
        ),
    ] {
        for cut in 0..bytes.len() {
            assert_eq!(Header::parse(&bytes[..cut]), Ok(None), "{:x?}", &bytes[..cut]);
        }
        let mut followed = bytes.to_vec();
        followed.push(0x77);
        let header = Header::parse(&followed).unwrap().unwrap();
        assert_eq!(
            (header.payload_len, header.len, header.mask),
            (payload_len, bytes.len(), [1, 2, 3, 4])
        );
        assert_eq!(header.fin, bytes[0] & 0x80 != 0);
    }
}

#[test]
fn broken_headers_fail_as_early_as_they_can() {
    for (bytes, why) in [
        (&[0xc1][..], "reserved bit set"),
        (&[0xa1], "reserved bit set"),
        (&[0x91], "reserved bit set"),
        (&[0x83], "reserved opcode"),
        (&[0x87], "reserved opcode"),
        (&[0x8b], "reserved opcode"),
        (&[0x8f], "reserved opcode"),
        (&[0x08], "fragmented control frame"),
        (&[0x09], "fragmented control frame"),
        (&[0x81, 0x05], "unmasked frame"),
        (&[0x89, 0xfe], "control frame too long"),
        (&[0x88, 0xff], "control frame too long"),
        (&[0x81, 0xfe, 0, 125], "length not in its shortest form"),
        (
            &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            "length not in its shortest form",
        ),
        (
            &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 125],
            "length not in its shortest form",
        ),
        (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 1], "length not in its shortest form"),
        (
            &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            "length with its highest bit set",
        ),
    ] {
        assert_eq!(Header::parse(bytes), Err(Violation::Protocol(why)), "{bytes:x?}");
        assert_eq!(
            Header::parse(&bytes[..bytes.len() - 1]),
            Ok(None),
            "{bytes:x?} less one"
        );
    }
}

#[test]
fn the_close_of_a_client_is_found_at_the_end_of_anything() {
    let close = [0x88, 0x82, 1, 2, 3, 4, 0x02, 0xea];
    assert!(ends_in_close(&close));
    assert!(ends_in_close(&[b"whatever \xff".as_slice(), &close].concat()));
    assert!(ends_in_close(&[0x88, 0x80, 0, 0, 0, 0]));
    assert!(!ends_in_close(&close[..7]), "not whole");
    assert!(!ends_in_close(&[0x88, 0x02, 1, 2, 3, 4, 0, 0]), "not masked");
    assert!(!ends_in_close(b""));
}
