#![expect(clippy::cast_possible_truncation, reason = "lengths that their arms have checked")]

use super::*;
use oracle::{Outcome, Said, feed};

mod oracle;
mod properties;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const BOUNDS: Bounds = Bounds {
    message_bytes: 1 << 20,
    fragments: 64,
};

fn whole(bytes: &[u8]) -> Outcome {
    feed(bytes, &[], BOUNDS)
}

fn bytewise(bytes: &[u8], bounds: Bounds) -> Outcome {
    let cuts: Vec<usize> = (1..bytes.len()).collect();
    feed(bytes, &cuts, bounds)
}

/// A client's frame; `first` holds FIN, the reserved bits and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0xfe);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0xff);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    let start = out.len();
    out.extend(payload);
    unmask(&mut out[start..], MASK, 0);
    out
}

fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|(first, payload)| frame(*first, payload))
        .collect()
}

/// The same whole and byte by byte.
fn check(sent: &[(u8, &[u8])], said: &[Said], violation: Option<Violation>) {
    let bytes = frames(sent);
    let expected = (said.to_vec(), violation);
    assert_eq!(whole(&bytes), expected, "whole: {sent:x?}");
    assert_eq!(bytewise(&bytes, BOUNDS), expected, "bytewise: {sent:x?}");
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

#[test]
fn an_assembler_at_rest_is_small() {
    assert!(size_of::<Assembler>() <= 40);
    assert_eq!(Assembler::new().held_bytes(), 0);
}

/// RFC 6455 section 5.7.
#[test]
fn the_masked_hello_of_the_rfc() {
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(whole(&bytes), (vec![text("Hello")], None));
    assert_eq!(bytewise(&bytes, BOUNDS), (vec![text("Hello")], None));
}

#[test]
fn messages_of_every_length_form() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
        let payload = "x".repeat(len);
        check(&[(0x81, payload.as_bytes())], &[text(&payload)], None);
        check(
            &[(0x82, payload.as_bytes())],
            &[Said::Binary(payload.clone().into())],
            None,
        );
    }
}

#[test]
fn control_frames_may_come_between_fragments() {
    check(
        &[
            (0x01, b"Hel"),
            (0x89, b"p"),
            (0x00, b""),
            (0x8a, b""),
            (0x80, b"lo"),
            (0x81, b"!"),
        ],
        &[Said::Ping(b"p".into()), Said::Pong(vec![]), text("Hello"), text("!")],
        None,
    );
    check(&[(0x02, b"a"), (0x88, b"")], &[Said::Close(None)], None);
}

#[test]
fn characters_may_be_cut_by_fragments() {
    let payload = "aß水𝄞".as_bytes();
    for cut in 0..=payload.len() {
        let (start, end) = payload.split_at(cut);
        check(&[(0x01, start), (0x00, b""), (0x80, end)], &[text("aß水𝄞")], None);
    }
}

#[test]
fn bad_utf8_is_a_violation_of_its_own() {
    let bad = Some(Violation::Utf8);
    for payload in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe6\xb0",
        b"ok\x80",
    ] {
        check(&[(0x81, payload)], &[], bad);
        check(&[(0x01, payload), (0x80, b"")], &[], bad);
        check(&[(0x01, b""), (0x80, payload)], &[], bad);
        check(&[(0x82, payload)], &[Said::Binary(payload.into())], None);
    }
    check(&[(0x88, b"\x03\xe8\xff")], &[], bad);
}

#[test]
fn bad_utf8_fails_before_the_message_ends() {
    let bytes = frames(&[(0x01, b"fine \xf0\x9f"), (0x00, b"\x41")]);
    assert_eq!(whole(&bytes), (vec![], Some(Violation::Utf8)));
    // A frame of a thousand bytes of which eight have come.
    let bytes = &frame(0x81, &[0xff; 1000])[..16];
    assert_eq!(whole(bytes), (vec![], Some(Violation::Utf8)));
}

#[test]
fn the_order_of_fragments_is_kept() {
    check(&[(0x80, b"x")], &[], Some(Violation::Protocol("nothing to continue")));
    check(
        &[(0x81, b"a"), (0x80, b"x")],
        &[text("a")],
        Some(Violation::Protocol("nothing to continue")),
    );
    let inside = Some(Violation::Protocol("new message inside a fragmented one"));
    check(&[(0x01, b"a"), (0x81, b"b")], &[], inside);
    check(&[(0x01, b"a"), (0x01, b"b")], &[], inside);
    check(
        &[(0x02, b"a"), (0x89, b""), (0x82, b"b")],
        &[Said::Ping(vec![])],
        inside,
    );
}

#[test]
fn close_codes() {
    check(&[(0x88, b"")], &[Said::Close(None)], None);
    check(&[(0x88, b"\x03")], &[], Some(Violation::Protocol("half a close code")));
    for code in [1000u16, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let payload = [&code.to_be_bytes()[..], "tschüß".as_bytes()].concat();
        check(&[(0x88, &payload)], &[Said::Close(Some((code, "tschüß".into())))], None);
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let refused = Some(Violation::Protocol("close code that may not be sent"));
        check(&[(0x88, &code.to_be_bytes())], &[], refused);
    }
}

#[test]
fn nothing_after_a_close_is_looked_at() {
    check(&[(0x88, b""), (0x8f, b"")], &[Said::Close(None)], None);
}

#[test]
fn a_message_too_large_fails_at_its_header() {
    let bounds = Bounds {
        message_bytes: 200,
        ..BOUNDS
    };
    let long = frame(0x82, &[0; 201]);
    assert_eq!(feed(&long[..8], &[], bounds), (vec![], Some(Violation::TooLarge)));
    assert_eq!(feed(&frame(0x82, &[0; 200]), &[], bounds).1, None);
    let parts = [frame(0x02, &[0; 150]), frame(0x80, &[0; 51])].concat();
    assert_eq!(
        feed(&parts[..158 + 6], &[], bounds),
        (vec![], Some(Violation::TooLarge))
    );
    // The longest length there is overflows nothing, whatever the operator allows.
    let huge = |first| [&[first, 0xff, 0x7f][..], &[0xff; 7], &MASK, b"start"].concat();
    assert_eq!(feed(&huge(0x02), &[], bounds), (vec![], Some(Violation::TooLarge)));
    let unbounded = Bounds {
        message_bytes: usize::MAX,
        ..BOUNDS
    };
    assert_eq!(feed(&huge(0x02), &[], unbounded), (vec![], None));
    let continued = [frame(0x02, b"a"), huge(0x00)].concat();
    assert_eq!(feed(&continued, &[20], unbounded), (vec![], None));
}

#[test]
fn fragments_are_counted_even_if_empty() {
    let bounds = Bounds { fragments: 3, ..BOUNDS };
    let three = frames(&[(0x01, b""), (0x00, b""), (0x89, b""), (0x80, b"")]);
    assert_eq!(bytewise(&three, bounds), (vec![Said::Ping(vec![]), text("")], None));
    let four = frames(&[(0x01, b""), (0x00, b""), (0x00, b""), (0x80, b"")]);
    assert_eq!(bytewise(&four, bounds), (vec![], Some(Violation::TooManyFragments)));
    let none = Bounds { fragments: 0, ..BOUNDS };
    assert_eq!(feed(&frame(0x81, b"whole"), &[3], none), (vec![text("whole")], None));
    assert_eq!(
        feed(&frame(0x01, b"first"), &[], none),
        (vec![], Some(Violation::TooManyFragments))
    );
}

/// Feeds one read and says what came of it and what is held then.
fn read(assembler: &mut Assembler, bytes: &[u8]) -> (Vec<Said>, usize) {
    let mut input = bytes.to_vec();
    let (mut used, mut said) = (0, Vec::new());
    while let Some(event) = assembler.next(&mut input, &mut used, BOUNDS).unwrap() {
        said.push(event.into());
    }
    (said, assembler.held_bytes())
}

#[test]
fn memory_follows_what_arrived_not_what_was_announced() {
    let mut assembler = Assembler::new();
    let bytes = frame(0x82, &vec![7; 1 << 20]);
    assert!(read(&mut assembler, &bytes[..14]).1 < 200);
    assert!(read(&mut assembler, &bytes[14..1014]).1 < 200 + 2000);
    assert!(read(&mut assembler, &bytes[1014..700_000]).1 < 200 + (1 << 20));
    // Doubling would now go past the end of the message.
    let last = bytes.len() - 1;
    assert!(read(&mut assembler, &bytes[700_000..last]).1 < 200 + (1 << 20));
    let (said, held) = read(&mut assembler, &bytes[last..]);
    assert_eq!((said.len(), held), (1, 0));
}

#[test]
fn nothing_is_held_between_messages() {
    let mut assembler = Assembler::new();
    let ping = frame(0x89, b"0123456789");
    assert_eq!(read(&mut assembler, &frame(0x81, b"whole")).1, 0);
    assert!(read(&mut assembler, &ping[..1]).1 > 0);
    assert_eq!(
        read(&mut assembler, &ping[1..]),
        (vec![Said::Ping(b"0123456789".into())], 0)
    );
    assert!(read(&mut assembler, &ping[..9]).1 > 0);
    assert_eq!(
        read(&mut assembler, &ping[9..]),
        (vec![Said::Ping(b"0123456789".into())], 0)
    );
    let start = read(&mut assembler, &frame(0x01, b"ab")).1;
    assert!(start > 0);
    read(&mut assembler, &ping[..9]);
    assert_eq!(
        read(&mut assembler, &ping[9..]).1,
        start,
        "a ping inside a message leaves nothing behind"
    );
    assert_eq!(read(&mut assembler, &frame(0x80, b"c")), (vec![text("abc")], 0));
}

#[test]
fn a_whole_message_is_handed_out_where_it_lies() {
    let mut input = frame(0x81, b"here");
    let at = input.as_ptr() as usize + 6;
    let mut used = 0;
    let mut assembler = Assembler::new();
    let Ok(Some(Event::Text(said))) = assembler.next(&mut input, &mut used, BOUNDS) else {
        panic!("a text message");
    };
    assert_eq!((said, said.as_ptr() as usize), ("here", at));
    assert_eq!(used, 10);
}
