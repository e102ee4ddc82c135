//! `conclave token --check`: what the server would say to this token, and why.

use std::io::Read;
use std::time::SystemTime;

use anyhow::Context;

use crate::auth::jwks::Jwks;
use crate::auth::{self, Policy, keys::Keys};
use crate::cli::args::Loudness;
use crate::cli::{EXIT_FAILURE, Failure};
use crate::config::Config;
use crate::outbound::Outbound;

/// More than any token may have (8 KiB), so that a wrong file is not read whole.
const INPUT_BYTES_MAX: u64 = 64 * 1_024;

/// Explains on stdout; exit code 1 when the server would refuse it.
pub fn run(token: &str, config: &Config, loudness: Loudness) -> Result<(), Failure> {
    let token = if token == "-" {
        from_stdin()?
    } else {
        token.trim().to_owned()
    };
    let policy = policy(config)?;
    let unread = read_keys(config, &policy)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs();
    if !loudness.quiet {
        for line in unread {
            println!("{line}");
        }
        for line in auth::diagnose(&token, &policy, now) {
            println!("{line}");
        }
    }
    if policy.verify(&token, now).is_ok() {
        Ok(())
    } else {
        Err(Failure::Said(EXIT_FAILURE))
    }
}

/// Reads keys by URL as the server does; a sentence for each issuer whose cannot be read.
fn read_keys(config: &Config, policy: &Policy) -> anyhow::Result<Vec<String>> {
    let jwks = Jwks::new(policy, &Outbound::new(&config.outbound))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(jwks.read_once()))
}

fn from_stdin() -> anyhow::Result<String> {
    let mut token = String::new();
    std::io::stdin()
        .take(INPUT_BYTES_MAX)
        .read_to_string(&mut token)
        .context("no token could be read from stdin")?;
    Ok(token.trim().to_owned())
}

fn policy(config: &Config) -> Result<Policy, Failure> {
    let keys = Keys::from_config(config).map_err(|problems| {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}\n  help: {}", problem.set_in, problem.what, problem.remedy))
            .collect();
        Failure::usage(lines.join("\n"))
    })?;
    Policy::new(config, keys).map_err(|problems| Failure::usage(problems.join("\n")))
}
