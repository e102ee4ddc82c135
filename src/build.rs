//! Build script: which commit and compiler this binary is made of, for `--version` and `conclave_build_info`.
//!
//! Works without git and outside a repository (a source archive, a container build): then it says "unknown",
//! unless the builder passes `CONCLAVE_COMMIT`.
#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::path::Path;
use std::process::Command;

fn main() {
    let commit = std::env::var("CONCLAVE_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(commit_of_this_tree)
        .unwrap_or_else(|| "unknown".to_owned());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = output_of(&rustc, &["--version"]).unwrap_or_else(|| "unknown".to_owned());
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    // Cargo hands these to whatever it runs, too: under our own prefix the server would take them for configuration.
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=BUILD_RUSTC={compiler}");
    println!("cargo::rustc-env=BUILD_TARGET={target}");
    println!("cargo::rerun-if-env-changed=CONCLAVE_COMMIT");
    println!("cargo::rerun-if-changed=src/build.rs");
    rerun_when_head_moves();
}

fn commit_of_this_tree() -> Option<String> {
    output_of("git", &["rev-parse", "--short=12", "HEAD"])
}

/// Without this a new commit would keep the old name until a source file changes.
fn rerun_when_head_moves() {
    for name in ["HEAD", "logs/HEAD"] {
        let path = output_of("git", &["rev-parse", "--git-path", name]);
        // A path that does not exist would make cargo run this script on every build.
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
