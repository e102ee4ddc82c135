//! What this binary is made of.

use std::sync::LazyLock;

const NUMBER: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, or "unknown".
pub const COMMIT: &str = match option_env!("BUILD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The compiler that built it, or "unknown".
pub const RUSTC: &str = match option_env!("BUILD_RUSTC") {
    Some(rustc) => rustc,
    None => "unknown",
};
const TARGET: &str = match option_env!("BUILD_TARGET") {
    Some(target) => target,
    None => "unknown",
};
const FEATURES: &str = if cfg!(feature = "jemalloc") { "jemalloc" } else { "none" };
const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// `-V`: the number and the commit.
pub fn short() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{NUMBER} ({COMMIT})"));
    &TEXT
}

/// `--version`: what a bug report needs.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{NUMBER}\ncommit:   {COMMIT}\nrustc:    {RUSTC}\ntarget:   {TARGET}\nprofile:  {PROFILE}\nfeatures: {FEATURES}"
        )
    });
    &TEXT
}
