//! Headers: read without a panic, only ever refused for good; written so that others read the same.
#![no_main]

use std::io::Cursor;

use conclave::websocket::frame::{Header, unmask};
use conclave::websocket::{
    Assembler, Bounds, Event, Opcode, Violation, close_frame, write_frame, write_header,
};
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::frame::FrameHeader;

fuzz_target!(|data: &[u8]| {
    read(data);
    let Some((choice, payload)) = data.split_first() else {
        return;
    };
    let opcode = match choice % 5 {
        0 => Opcode::Text,
        1 => Opcode::Binary,
        2 => Opcode::Ping,
        3 => Opcode::Pong,
        _ => return write_close(payload),
    };
    let end = if opcode.is_control() {
        payload.len().min(125)
    } else {
        payload.len()
    };
    write(opcode, &payload[..end]);
    // Long forms, without the bytes that they announce.
    if let Some(len) = payload.first_chunk::<4>() {
        let mut out = Vec::new();
        let len = u32::from_le_bytes(*len) as usize;
        write_header(&mut out, Opcode::Binary, len);
        assert_eq!(theirs(&out).1, len as u64);
    }
});

/// Bytes that have begun well may become bad, but a verdict once given stands.
fn read(data: &[u8]) {
    let mut verdict = Ok(None);
    for end in 0..=data.len().min(20) {
        let now = Header::parse(&data[..end]);
        assert!(
            verdict == Ok(None) || verdict == now,
            "{verdict:?} became {now:?}"
        );
        verdict = now;
    }
    let Ok(Some(header)) = verdict else { return };
    let (theirs, payload_len, len) = theirs(data);
    assert_eq!(
        (header.fin, header.mask),
        (theirs.is_final, theirs.mask.unwrap())
    );
    assert_eq!((header.payload_len, header.len as u64), (payload_len, len));
}

fn theirs(bytes: &[u8]) -> (FrameHeader, u64, u64) {
    let mut cursor = Cursor::new(bytes);
    let (header, payload_len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
    (header, payload_len, cursor.position())
}

/// Written as a server, read by tungstenite; then masked as a client would and read by us.
fn write(opcode: Opcode, payload: &[u8]) {
    let mut out = Vec::new();
    write_frame(&mut out, opcode, payload);
    let (header, payload_len, at) = theirs(&out);
    assert!(header.is_final && header.mask.is_none());
    assert_eq!(
        (payload_len as usize, &out[at as usize..]),
        (payload.len(), payload)
    );

    let mask = [payload.len() as u8, 0x00, 0x5a, 0xff];
    let mut client = masked(out, at as usize, mask);
    let mut used = 0;
    let bounds = Bounds {
        message_bytes: usize::MAX,
        fragments: 0,
    };
    match (
        opcode,
        Assembler::new().next(&mut client, &mut used, bounds),
    ) {
        (Opcode::Text, Ok(Some(Event::Text(text)))) => assert_eq!(text.as_bytes(), payload),
        (Opcode::Text, Err(Violation::Utf8)) => assert!(std::str::from_utf8(payload).is_err()),
        (Opcode::Binary, Ok(Some(Event::Binary(bytes)))) => assert_eq!(bytes, payload),
        (Opcode::Ping, Ok(Some(Event::Ping(bytes)))) => assert_eq!(bytes, payload),
        (Opcode::Pong, Ok(Some(Event::Pong(bytes)))) => assert_eq!(bytes, payload),
        (opcode, event) => panic!("{opcode:?} became {event:?}"),
    }
    assert_eq!(used, client.len());
}

/// A server's frame as a client's, its payload masked in two pieces.
fn masked(mut frame: Vec<u8>, payload_at: usize, mask: [u8; 4]) -> Vec<u8> {
    frame[1] |= 0x80;
    frame.splice(payload_at..payload_at, mask);
    let payload = &mut frame[payload_at + 4..];
    let middle = payload.len() / 3;
    unmask(&mut payload[..middle], mask, 0);
    unmask(&mut payload[middle..], mask, middle);
    frame
}

fn write_close(data: &[u8]) {
    let Some((code, reason)) = data.split_first_chunk::<2>() else {
        return;
    };
    let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
    let out = close_frame(code, &reason);
    let (_, payload_len, at) = theirs(&out);
    assert_eq!((at, payload_len as usize), (2, out.len() - 2));
    assert!(payload_len <= 125);
    assert_eq!(out[2..4], code.to_be_bytes());
    let kept = std::str::from_utf8(&out[4..]).unwrap();
    assert!(reason.starts_with(kept));
    assert!(kept.len() == reason.len() || kept.len() >= 120);
}
