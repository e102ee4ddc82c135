//! The process entry: arguments and environment are read here, once, and passed down.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn main() -> ExitCode {
    // Lossy, because one foreign variable that is not UTF-8 must not keep a server from starting.
    let environment = std::env::vars_os()
        .map(|(name, value)| (lossy(name), lossy(value)))
        .collect();
    ExitCode::from(conclave::cli::run(std::env::args_os(), environment))
}

fn lossy(word: std::ffi::OsString) -> String {
    word.to_string_lossy().into_owned()
}
