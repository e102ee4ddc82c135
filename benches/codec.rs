//! The codec alone: what a message costs before anybody looks at what it says.
//!
//! `cargo bench --bench codec`

use conclave::websocket::frame::unmask;
use conclave::websocket::{Assembler, Bounds, Opcode, write_frame};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

const BOUNDS: Bounds = Bounds {
    message_bytes: 1 << 20,
    fragments: 1_024,
};
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A chat, a long chat, a page, the default limit.
const LENGTHS: [usize; 4] = [64, 512, 4_096, 65_536];

fn main() {
    divan::main();
}

/// A client's text frame.
fn frame(first: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, Opcode::Text, &vec![b'x'; len]);
    let header = out.len() - len;
    out[0] = first;
    out[1] |= 0x80;
    out.splice(header..header, MASK);
    unmask(&mut out[header + 4..], MASK, 0);
    out
}

/// Hands `input` to `assembler` in reads of `read` bytes; how many events came of it.
fn feed(assembler: &mut Assembler, input: &mut [u8], read: usize) -> usize {
    let mut events = 0;
    for input in input.chunks_mut(read) {
        let mut used = 0;
        while let Ok(Some(event)) = assembler.next(input, &mut used, BOUNDS) {
            black_box(event);
            events += 1;
        }
    }
    events
}

#[divan::bench(args = LENGTHS)]
fn unmask_only(bencher: Bencher, len: usize) {
    let mut payload = vec![0; len];
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| unmask(black_box(&mut payload), MASK, 1));
}

/// The usual case: one frame, one read, nothing copied.
#[divan::bench(args = LENGTHS)]
fn message_in_one_read(bencher: Bencher, len: usize) {
    let bytes = frame(0x81, len);
    bencher
        .counter(BytesCount::new(len))
        .with_inputs(|| bytes.clone())
        .bench_local_refs(|input| feed(&mut Assembler::new(), input, usize::MAX));
}

/// A read that ends inside the frame.
#[divan::bench(args = LENGTHS)]
fn message_in_two_reads(bencher: Bencher, len: usize) {
    let bytes = frame(0x81, len);
    bencher
        .counter(BytesCount::new(len))
        .with_inputs(|| bytes.clone())
        .bench_local_refs(|input| feed(&mut Assembler::new(), input, len / 2 + 3));
}

/// 64 bytes per fragment, as a flood would send them; all in one read.
#[divan::bench(args = LENGTHS)]
fn message_in_fragments(bencher: Bencher, len: usize) {
    let mut bytes = Vec::new();
    for at in (0..len).step_by(64) {
        let first = match (at, at + 64 >= len) {
            (0, true) => 0x81,
            (0, false) => 0x01,
            (_, true) => 0x80,
            (_, false) => 0x00,
        };
        bytes.extend(frame(first, 64));
    }
    bencher
        .counter(BytesCount::new(len))
        .with_inputs(|| bytes.clone())
        .bench_local_refs(|input| feed(&mut Assembler::new(), input, usize::MAX));
}

/// What a broadcast pays once.
#[divan::bench(args = LENGTHS)]
fn write(bencher: Bencher, len: usize) {
    let payload = vec![b'x'; len];
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        let mut out = Vec::new();
        write_frame(&mut out, Opcode::Text, black_box(&payload));
        out
    });
}
