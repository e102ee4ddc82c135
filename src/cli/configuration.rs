//! The configuration as `serve` takes it: what `config` checks, and whether the keys can be used.

use super::Failure;
use crate::auth::keys::Keys;
use crate::config::{self, At, Config, KeySource, Loaded, Problem, Sources};

/// Loads and checks everything, all problems at once.
pub fn load(sources: &Sources) -> Result<Loaded, Failure> {
    Ok(config::load_with(sources, key_problems)?)
}

/// What is wrong with the content of key files. Files that cannot be read are a finding of `config` already.
pub fn key_problems(config: &Config) -> Vec<Problem> {
    let readable: Vec<_> = config.auth.keys.iter().filter(|key| is_readable(&key.source)).cloned().collect();
    let problems = Keys::load(&readable).err().unwrap_or_default();
    let known = problems.into_iter().map(|problem| {
        let said = Problem::error("auth.keys", problem.what, problem.remedy);
        match At::from_short(&problem.set_in) {
            Some(at) => said.at(at),
            None => said,
        }
    });
    known.collect()
}

fn is_readable(source: &KeySource) -> bool {
    match source {
        KeySource::Secret(_) => true,
        KeySource::SecretFile(path) | KeySource::PublicKeyFile(path) | KeySource::JwksFile(path) => {
            std::fs::File::open(path).is_ok()
        }
    }
}
