//! The process environment as `main` read it, once.

use std::path::PathBuf;

use crate::config::Sources;

/// Where `dev` keeps its certificate and secret; not a key of the configuration.
const STATE_DIRECTORY: &str = "CONCLAVE_STATE_DIR";
/// The configuration file when no flag names one, for containers.
const CONFIGURATION_FILE: &str = "CONCLAVE_CONFIG";

/// A snapshot of the environment variables.
#[derive(Clone)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// Wraps the variables that `main` read.
    pub fn new(variables: Vec<(String, String)>) -> Self {
        Self(variables)
    }

    /// The value of a variable that is set and not empty.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// What the configuration is made of: a file (a flag's, else `$CONCLAVE_CONFIG`), and the variables.
    pub fn sources(&self, file: Option<PathBuf>) -> Sources {
        let file = file.or_else(|| self.value(CONFIGURATION_FILE).map(PathBuf::from));
        Sources {
            file,
            environment: self.0.clone(),
            overrides: Vec::new(),
            facts: None,
        }
    }

    /// `$CONCLAVE_STATE_DIR`, else the XDG base directory specification's place for state.
    pub fn state_directory(&self) -> Option<PathBuf> {
        let absolute = |name| self.value(name).map(PathBuf::from).filter(|path| path.is_absolute());
        self.value(STATE_DIRECTORY)
            .map(PathBuf::from)
            .or_else(|| absolute("XDG_STATE_HOME").map(|base| base.join("conclave")))
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state/conclave")))
    }

    /// Whether the user asked for no colour (no-color.org: set and not empty).
    pub fn no_color(&self) -> bool {
        self.value("NO_COLOR").is_some() || self.value("TERM") == Some("dumb")
    }
}
