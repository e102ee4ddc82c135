//! A panic becomes one `error` line, and is counted. Its text is shown only when it is a literal
//! of the source: a formatted one may hold bytes from the network, and so a token.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics of this process so far.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Replaces the hook that prints to standard error.
pub(super) fn install_hook() {
    panic::set_hook(Box::new(on_panic));
}

pub(super) fn on_panic(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let text = info
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(not shown)");
    let (file, line) = info.location().map_or(("(unknown)", 0), |at| (at.file(), at.line()));
    let current = thread::current();
    let thread = current.name().unwrap_or("(unnamed)");
    tracing::error!(file, line, thread, panic = text, "a bug: the work at hand was given up");
}
