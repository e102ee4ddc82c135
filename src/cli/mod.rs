//! The command line: one file or folder per verb. Catch-all errors exist here and no deeper.

mod admin;
pub mod api_key;
mod args;
pub mod bench;
pub mod check_config;
pub mod completions;
pub mod config_init;
mod configuration;
mod control;
pub mod dev;
pub mod drain;
mod environment;
mod failure;
pub mod healthcheck;
pub mod kick;
pub mod man;
mod paint;
pub mod probe;
pub mod revoke;
pub mod serve;
pub mod token;
mod trust;
mod version;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::Parser;

use args::{ApiKeyVerb, Arguments, ConfigVerb, Loudness, Verb};
pub use environment::Environment;
pub use failure::Failure;
pub use version::{COMMIT, RUSTC};

/// Exit code of bad arguments and bad configuration (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code of everything else that went wrong.
pub const EXIT_FAILURE: u8 = 1;

/// Runs one verb and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Vec<(String, String)>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => arguments,
        Err(refusal) => return refused(&refusal, probe::usage_code(&arguments).unwrap_or(EXIT_USAGE)),
    };
    let environment = Environment::new(environment);
    if let Err(broken) = crate::auth::keys::install_provider() {
        return Failure::other(broken).report();
    }
    match dispatch(arguments.verb, arguments.loudness, &environment) {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

/// Prints help, version or what is wrong with the arguments.
fn refused(refusal: &clap::Error, code: u8) -> u8 {
    // Nothing is left to be done when not even this can be written.
    let _ = refusal.print();
    if refusal.use_stderr() { code } else { 0 }
}

fn dispatch(verb: Verb, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    match verb {
        Verb::Serve(args) => serve::run(&args, loudness, environment),
        Verb::Dev(args) => dev::run(&args, loudness, environment),
        Verb::Token(args) => token::run(&args, loudness, environment),
        Verb::ApiKey(ApiKeyVerb::New(args)) => api_key::new(&args, loudness),
        Verb::CheckConfig(args) => {
            let mut sources = environment.sources(args.config.clone());
            sources.facts = Some(check_config::facts(&args));
            Failure::from_code(check_config::run(&sources, &args, configuration::key_problems))
        }
        Verb::Config(ConfigVerb::Init { path, force }) => Failure::from_code(config_init::run(path, force)),
        Verb::Config(ConfigVerb::Env) => {
            print!("{}", config_init::env_table());
            Ok(())
        }
        Verb::Healthcheck(args) => healthcheck::run(&args, loudness, environment),
        Verb::Revoke(args) => revoke::run(&args, loudness, environment),
        Verb::Kick(args) => kick::run(&args, loudness, environment),
        Verb::Drain(args) => drain::run(&args, loudness, environment),
        Verb::Probe(args) => probe::run(&args, loudness, environment),
        Verb::Bench(args) => bench::run(&args, loudness, environment),
        Verb::Completions { shell } => completions::run(shell),
        Verb::Man { directory } => man::run(directory.as_deref()),
    }
}
