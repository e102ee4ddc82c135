//! What one message costs to read, and one broadcast to write: `cargo bench --bench protocol`.
//!
//! Aim: under 1 µs each for a message of 128 bytes, and no allocation in reading.

use conclave::protocol::{client, server};
use divan::{AllocProfiler, Bencher, black_box};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: &[usize] = &[128, 1024, 16 * 1024];

fn main() {
    divan::main();
}

/// A `chat` of `bytes` bytes in all.
fn chat(bytes: usize) -> String {
    let (head, tail) = (
        r#"{"type":"chat","room":"lobby","ref":12,"content":{"text":""#,
        r#""}}"#,
    );
    format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
}

#[divan::bench(args = SIZES)]
fn read_chat(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = chat(bytes);
    bencher
        .counter(divan::counter::BytesCount::new(bytes))
        .bench_local(|| client::parse(black_box(&text)).is_ok());
}

#[divan::bench]
fn refuse_nesting(bencher: Bencher<'_, '_>) {
    let text = format!(
        r#"{{"type":"chat","room":"r","content":{}{}}}"#,
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    bencher.bench_local(|| client::parse(black_box(&text)).is_err());
}

#[divan::bench(args = SIZES)]
fn write_chat(bencher: Bencher<'_, '_>, bytes: usize) {
    let content = server::quote(&"x".repeat(bytes));
    let room_json = server::quote("lobby");
    let from_json = server::User {
        id: "u7",
        name: Some("Ann"),
        info: None,
    }
    .to_json();
    bencher.counter(divan::counter::BytesCount::new(bytes)).bench_local(|| {
        let mut out = Vec::new();
        let frame = server::Chat {
            room_json: &room_json,
            seq: 123_456,
            epoch: None,
            from_json: &from_json,
            content: &content,
            time_ms: 1_767_225_600_000,
        };
        black_box(&frame).write(&mut out);
        out
    });
}
