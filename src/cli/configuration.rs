//! The configuration as `serve` takes it: what `config` checks, and whether the keys can be used.

use super::Failure;
use crate::auth::keys::Keys;
use crate::config::{self, At, Config, Loaded, Problem, Sources};

/// Loads and checks everything, all problems at once.
pub fn load(sources: &Sources) -> Result<Loaded, Failure> {
    Ok(config::load_with(sources, key_problems)?)
}

/// What is wrong with the content of key files; `config` has looked at the files themselves.
pub fn key_problems(config: &Config) -> Vec<Problem> {
    let problems = Keys::load(&config.auth.keys).err().unwrap_or_default();
    let placed = problems.into_iter().map(|problem| {
        let said = Problem::error("auth.keys", problem.what, problem.remedy);
        match At::from_short(&problem.set_in) {
            Some(at) => said.at(at),
            None => said,
        }
    });
    placed.collect()
}
