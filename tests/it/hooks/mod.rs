//! The application is asked, and what it answers holds.

mod asking;
mod calls;
mod failing;
mod load;
mod seen;
mod telling;

use crate::harness::backend::{self, Backend};
use crate::harness::{self, Builder};

/// A node that signs with [`backend::SECRET`] and has one hook to be asked: `lines` of its table besides the URL.
fn asking(backend: &Backend, lines: &str) -> Builder {
    signing(harness::node()).entry("hooks.ask", &format!("url = \"{}/hook\"\n{lines}", backend.url))
}

fn signing(node: Builder) -> Builder {
    node.set("hooks.secret_file", "hook-secret")
        .file("hook-secret", backend::SECRET)
}
