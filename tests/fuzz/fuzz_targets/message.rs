//! What a client says in JSON: read without a panic, whatever it is.
#![no_main]

use conclave::protocol::client;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let first = client::parse(text).is_ok();
    assert_eq!(first, client::parse(text).is_ok());
});
