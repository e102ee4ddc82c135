//! One pass from outside to a checked `Config`: file, variables and flags over the defaults, then the checks.

use std::path::PathBuf;

use super::facts::Facts;
use super::problem::{Problem, Problems, Severity};
use super::schema::KEYS;
use super::settings::{Layer, Settings};
use super::{Config, assemble, check, document, environment, files};

/// Everything from outside that configures the server. `main` fills it in; no other part asks the process.
#[derive(Clone, Default)]
pub struct Sources {
    /// The TOML file; one that was asked for must be there.
    pub file: Option<PathBuf>,
    /// Variables, of which only those that start with `CONCLAVE_` are read. They may hold secrets.
    pub environment: Vec<(String, String)>,
    /// Flags: dotted key, text, and the flag's name for messages.
    pub overrides: Vec<(String, String, String)>,
    /// The place where it would run. Without, what is merely risky is not looked for.
    pub facts: Option<Facts>,
}

/// A configuration that the server can start with.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub effective: Vec<Effective>,
    /// What a person should know all the same, notes last.
    pub warnings: Vec<Problem>,
}

/// One key as it holds, for `check-config --print`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub key: String,
    /// Secrets are `***`.
    pub value_shown: String,
    /// `default`, `conclave.toml:12`, or the name of a variable or flag.
    pub source: String,
}

/// Reads and checks the configuration.
///
/// # Errors
/// Everything that is wrong, at once, warnings last.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    load_with(sources, |_| Vec::new())
}

/// As [`load`], with checks of other parts, such as whether every key in `auth.keys` can be used. They are left
/// out while an entry there is known to be wrong, because they would say the same again.
///
/// # Errors
/// As [`load`].
pub fn load_with(sources: &Sources, extra: impl FnOnce(&Config) -> Vec<Problem>) -> Result<Loaded, Problems> {
    let mut settings = Settings::defaults();
    let mut problems = Vec::new();
    let is_file_known = match read_file(sources) {
        Ok(layer) => {
            problems.extend(settings.lay(layer));
            true
        }
        Err(problem) => {
            problems.push(problem);
            false
        }
    };
    problems.extend(settings.lay(environment::read(&sources.environment)));
    problems.extend(settings.lay(environment::read_flags(&sources.overrides)));
    // Without the file most of what the rules would find is not there at all.
    let config = if is_file_known {
        Some(build(&mut settings, &mut problems, sources.facts.as_ref(), extra))
    } else {
        None
    };
    finish(config, &settings, problems)
}

/// The configuration when nobody says anything: for `dev`, which fills in the rest, and for tests. Its
/// certificate paths are empty and it has no keys.
pub fn default_config() -> Config {
    assemble::assemble(&mut Settings::defaults(), &mut Vec::new())
}

fn read_file(sources: &Sources) -> Result<Layer, Problem> {
    let Some(file) = &sources.file else {
        return Ok(Layer::default());
    };
    let remedy = || {
        format!(
            "write one with \"conclave config init {}\", or correct the path",
            file.display()
        )
    };
    let bytes = files::read(file).map_err(|what| Problem::error("", what, remedy()))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Problem::error(
            "",
            format!("not text: {}", file.display()),
            "a configuration is TOML, in UTF-8",
        )
    })?;
    document::read(file, &text)
}

fn build(
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
    facts: Option<&Facts>,
    extra: impl FnOnce(&Config) -> Vec<Problem>,
) -> Config {
    let mut found = Vec::new();
    let config = assemble::assemble(settings, &mut found);
    let is_about_keys = |problem: &Problem| problem.severity == Severity::Error && problem.key.starts_with(KEYS);
    let are_keys_wrong = settings.is_tainted(KEYS) || found.iter().any(is_about_keys);
    found.extend(check::check(&config, |config| {
        if are_keys_wrong { Vec::new() } else { extra(config) }
    }));
    found.extend(facts.iter().flat_map(|facts| check::risk::check(&config, facts)));
    // Entries that are there and wrong have been told; that none is left to use is no news.
    let is_new = |problem: &Problem| {
        let is_about_none = are_keys_wrong && problem.key == KEYS;
        !is_about_none && !settings.is_tainted(&problem.key)
    };
    let placed = found.into_iter().filter(is_new).map(|problem| {
        let at = problem.at.clone().or_else(|| settings.at(&problem.key));
        Problem { at, ..problem }
    });
    problems.extend(placed);
    config
}

fn finish(config: Option<Config>, settings: &Settings, mut problems: Vec<Problem>) -> Result<Loaded, Problems> {
    problems.sort_by_key(|problem| problem.severity);
    let is_sound = problems.iter().all(|problem| problem.severity != Severity::Error);
    match config {
        Some(config) if is_sound => {
            let effective = settings
                .effective()
                .into_iter()
                .map(|(key, value_shown, source)| Effective {
                    key,
                    value_shown,
                    source,
                })
                .collect();
            Ok(Loaded {
                config,
                effective,
                warnings: problems,
            })
        }
        _ => Err(Problems(problems)),
    }
}
