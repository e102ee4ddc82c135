//! Any bytes, cut anywhere; and both ways between us and tungstenite.
#![expect(clippy::cast_possible_truncation, reason = "lengths and patterns made small here")]

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader, FrameSocket};

use super::oracle::{Said, compare, feed};
use super::{BOUNDS, Bounds, frame};
use crate::websocket::frame::{Opcode, unmask, write_frame};

/// Small, so that random frames pass it now and then.
const MESSAGE_BYTES: usize = 2_000;

/// How a test frame is written; mostly valid.
#[derive(Debug, Clone)]
struct Written {
    /// FIN, reserved bits, opcode.
    first: u8,
    masked: bool,
    payload: Vec<u8>,
    /// Bytes of length after the second byte: 0, 2 or 8; `None` for the shortest form.
    length_form: Option<usize>,
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        let len = self.payload.len();
        let shortest = [(126, 0), (0x1_0000, 2)]
            .into_iter()
            .find(|(over, _)| len < *over)
            .map_or(8, |it| it.1);
        let form = self.length_form.unwrap_or(shortest).max(shortest);
        let mask_bit = if self.masked { 0x80 } else { 0 };
        let mut out = vec![self.first];
        match form {
            0 => out.push(mask_bit | len as u8),
            2 => out.extend([&[mask_bit | 0x7e][..], &(len as u16).to_be_bytes()].concat()),
            _ => out.extend([&[mask_bit | 0x7f][..], &(len as u64).to_be_bytes()].concat()),
        }
        let mut payload = self.payload.clone();
        if self.masked {
            let mask = [len as u8, 0xa5, 0x00, 0xff];
            out.extend(mask);
            unmask(&mut payload, mask, 0);
        }
        out.extend(payload);
        out
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "\\PC{0,40}".prop_map(String::into_bytes),
        // A character in pieces.
        3 => (0..10usize, 0..10usize).prop_map(|(from, to)| {
            let all = "ß水𝄞z".as_bytes();
            all[from.min(to)..from.max(to)].to_vec()
        }),
        3 => vec(any::<u8>(), 0..200),
        1 => (0..3_000usize).prop_map(|len| vec![b'x'; len]),
        // A close code and its reason.
        2 => (900..5_100u16, "[a-zß]{0,8}").prop_map(|(code, reason)| {
            [&code.to_be_bytes()[..], reason.as_bytes()].concat()
        }),
    ]
}

/// Of every length form. The bytes themselves matter little, and random ones take long to draw.
fn long_payload() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0..130usize, 0..70_000usize];
    (len, any::<u8>()).prop_map(|(len, key)| (0..len).map(|at| (at % 251) as u8 ^ key).collect())
}

fn written() -> impl Strategy<Value = Written> {
    let opcode = prop_oneof![
        5 => Just(0x0u8), 4 => Just(0x1), 2 => Just(0x2), 2 => Just(0x9), 1 => Just(0xa),
        1 => Just(0x8),
    ];
    let fin = prop_oneof![Just(0x80u8), Just(0)];
    let odd = prop_oneof![40 => Just(0u8), 1 => any::<u8>()];
    let masked = prop_oneof![40 => Just(true), 1 => Just(false)];
    let length_form = prop_oneof![40 => Just(None), 1 => Just(Some(2)), 1 => Just(Some(8))];
    (opcode, fin, odd, masked, payload(), length_form).prop_map(|(opcode, fin, odd, masked, payload, length_form)| {
        let control = opcode & 0x8 != 0;
        let fin = if control { 0x80 } else { fin };
        let first = (opcode | fin) ^ odd;
        Written {
            first,
            masked,
            payload,
            length_form,
        }
    })
}

/// Whole messages in fragments, with control frames in between, all of it valid.
fn valid() -> impl Strategy<Value = Vec<Written>> {
    let ping = (prop_oneof![Just(0x89u8), Just(0x8a)], vec(any::<u8>(), 0..=125));
    let text = prop_oneof!["\\PC{0,60}", "[ -~]{0,300}", "[ß水𝄞]{0,99}"];
    let message = prop_oneof![
        text.prop_map(|text| (0x01u8, text.into_bytes())),
        vec(any::<u8>(), 0..400).prop_map(|bytes| (0x02, bytes)),
    ];
    let part = (
        message,
        vec(any::<prop::sample::Index>(), 0..4),
        proptest::option::of(ping),
    );
    let written = |first, payload: &[u8]| Written {
        first,
        masked: true,
        payload: payload.to_vec(),
        length_form: None,
    };
    vec(part, 1..6).prop_map(move |parts| {
        let mut out = Vec::new();
        for ((opcode, bytes), cuts, ping) in parts {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut start, last) = (0, cuts.len() - 1);
            for (at, end) in cuts.into_iter().enumerate() {
                let opcode = if at == 0 { opcode } else { 0 };
                let fin = if at == last { 0x80 } else { 0 };
                out.push(written(fin | opcode, &bytes[start..end]));
                start = end;
                if let Some((first, payload)) = &ping {
                    out.push(written(*first, payload));
                }
            }
        }
        out
    })
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    use prop::sample::Index;
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        any::<Index>().prop_map(Mutation::Remove),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Truncate),
    ];
    vec(one, 0..3)
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => bytes[at.index(len)] = *byte,
        Mutation::Flip(at, bit) => bytes[at.index(len)] ^= bit,
        Mutation::Remove(at) => drop(bytes.remove(at.index(len))),
        Mutation::Insert(at, byte) => bytes.insert(at.index(len), *byte),
        Mutation::Truncate(at) => bytes.truncate(at.index(len)),
    }
}

fn joined(frames: &[Written]) -> Vec<u8> {
    frames.iter().flat_map(Written::bytes).collect()
}

fn cuts(places: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = places.iter().map(|place| place.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

fn places() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_mean_what_they_mean_to_tungstenite(bytes in vec(any::<u8>(), 0..300), places in places()) {
        compare(&bytes, &cuts(&places, bytes.len()), MESSAGE_BYTES);
    }

    #[test]
    fn any_frames_mean_what_they_mean_to_tungstenite(frames in vec(written(), 0..12), places in places()) {
        let bytes = joined(&frames);
        compare(&bytes, &cuts(&places, bytes.len()), MESSAGE_BYTES);
    }

    #[test]
    fn damaged_frames_mean_what_they_mean_to_tungstenite(
        frames in valid(), mutations in mutations(), places in places(),
    ) {
        let mut bytes = joined(&frames);
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        compare(&bytes, &cuts(&places, bytes.len()), MESSAGE_BYTES);
    }

    #[test]
    fn byte_by_byte_is_the_same_as_whole(frames in valid(), mutations in mutations()) {
        let mut bytes = joined(&frames);
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        let every: Vec<usize> = (1..bytes.len()).collect();
        for bounds in [BOUNDS, Bounds { message_bytes: 100, fragments: 2 }] {
            prop_assert_eq!(feed(&bytes, &every, bounds), feed(&bytes, &[], bounds));
        }
    }

    #[test]
    fn what_tungstenite_masks_is_understood(
        payload in long_payload(), mask in any::<[u8; 4]>(), places in places(),
    ) {
        let opcode = OpCode::Data(Data::Binary);
        let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        Frame::from_payload(header, payload.clone().into()).format(&mut bytes).unwrap();
        let cuts = cuts(&places, bytes.len());
        prop_assert_eq!(feed(&bytes, &cuts, BOUNDS), (vec![Said::Binary(payload)], None));
    }

    #[test]
    fn what_we_write_is_understood_by_tungstenite(payload in long_payload()) {
        let short = &payload[..payload.len().min(125)];
        for (opcode, theirs, payload) in [
            (Opcode::Text, OpCode::Data(Data::Text), &payload[..]),
            (Opcode::Binary, OpCode::Data(Data::Binary), &payload),
            (Opcode::Close, OpCode::Control(Control::Close), short),
            (Opcode::Ping, OpCode::Control(Control::Ping), short),
            (Opcode::Pong, OpCode::Control(Control::Pong), short),
        ] {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, opcode, payload);
            let mut socket = FrameSocket::new(std::io::Cursor::new(bytes));
            let read = socket.read(None).unwrap().unwrap();
            let header = FrameHeader { opcode: theirs, ..FrameHeader::default() };
            prop_assert_eq!(read, Frame::from_payload(header, payload.to_vec().into()));
            prop_assert_eq!(socket.into_inner().1.len(), 0);
        }
    }
}

/// Every code, since random ones seldom meet the edges.
#[test]
fn close_codes_mean_what_they_mean_to_tungstenite() {
    for code in 0..=u16::MAX {
        compare(&frame(0x88, &code.to_be_bytes()), &[], MESSAGE_BYTES);
    }
}

/// Every first two bytes with a little after them.
#[test]
fn first_bytes_mean_what_they_mean_to_tungstenite() {
    for first in 0..=u16::MAX {
        let bytes = [&first.to_be_bytes()[..], &[0x00, 0x7e, 0x12, 0x80, 0x00, 0x03]].concat();
        compare(&bytes, &[1, 4], MESSAGE_BYTES);
    }
}
