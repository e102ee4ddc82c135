//! A client's bytes: cut anywhere they mean what they mean whole, and what they mean to tungstenite.
#![no_main]

use conclave::websocket::{Assembler, Bounds, Event, Violation};
use libfuzzer_sys::fuzz_target;

#[path = "../../../src/websocket/assembler/tests/oracle.rs"]
mod oracle;

/// The first bytes say where to cut: how many cuts (`EVERYWHERE`: after each byte), then how far
/// each is from the one before.
const EVERYWHERE: u8 = 0xff;

fuzz_target!(|data: &[u8]| {
    let Some((count, rest)) = data.split_first() else {
        return;
    };
    if *count == EVERYWHERE {
        return oracle::compare(rest, &(1..rest.len()).collect::<Vec<_>>(), 2_000);
    }
    let (steps, bytes) = rest.split_at(rest.len().min(usize::from(count % 8)));
    let cuts = steps.iter().scan(0, |at, step| {
        *at = bytes.len().min(*at + usize::from(*step));
        Some(*at)
    });
    oracle::compare(bytes, &cuts.collect::<Vec<_>>(), 2_000);
});
