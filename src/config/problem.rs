//! What is wrong with a configuration, in words a person can act on: what, where, why, and how to fix it.

use std::fmt;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A line of a file, counted from 1.
    File { file: PathBuf, line: usize },
    /// An environment variable, by name.
    Environment(String),
    /// A command-line flag, by name.
    Flag(String),
}

impl At {
    /// Short form for tables and messages of other parts: `conclave.toml:12`.
    pub fn short(&self) -> String {
        match self {
            Self::File { file, line } => format!("{}:{line}", file.display()),
            Self::Environment(name) | Self::Flag(name) => name.clone(),
        }
    }

    /// The place that [`At::short`] wrote, such as `set_in` of a key; none when there is nothing.
    pub fn from_short(short: &str) -> Option<Self> {
        let file = short
            .rsplit_once(':')
            .and_then(|(file, line)| Some((file, line.parse().ok()?)));
        match file {
            _ if short.is_empty() => None,
            Some((file, line)) => Some(Self::File {
                file: file.into(),
                line,
            }),
            None if short.starts_with('-') => Some(Self::Flag(short.to_owned())),
            None => Some(Self::Environment(short.to_owned())),
        }
    }
}

/// `set in conclave.toml line 12`, without the verb.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "in {} line {line}", file.display()),
            Self::Environment(name) => write!(f, "by the environment variable {name}"),
            Self::Flag(name) => write!(f, "by {name}"),
        }
    }
}

/// Whether the server would start all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does not start.
    Error,
    /// It starts, and a person should know.
    Warning,
    /// In order for most; said when somebody asks.
    Note,
}

impl Severity {
    /// The word in front of the message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that is wrong. Secret values appear in none of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// Where the value was set; `load` fills it in from `key` when a check leaves it out.
    pub at: Option<At>,
    /// Dotted, such as `auth.keys[0].secret_file`; empty when it is about a file as a whole.
    pub key: String,
    /// What is wrong, in a clause.
    pub what: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

impl Problem {
    /// A problem that keeps the server from starting.
    pub fn error(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            at: None,
            key: key.into(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A problem that the server starts with.
    pub fn warning(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(key, what, remedy)
        }
    }

    /// Worth knowing, and no fault.
    pub fn note(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            ..Self::error(key, what, remedy)
        }
    }

    /// The same problem, with the place where its cause was set.
    pub fn at(mut self, at: At) -> Self {
        self.at = Some(at);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity.as_str())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.what)?;
        if let Some(at) = &self.at {
            write!(f, "\n  set {at}")?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n  help: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration: errors first, then warnings, then notes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many of them keep the server from starting.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// One is printed as it is, several are numbered.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            let indented = problem.to_string().replace('\n', "\n   ");
            write!(f, "{separator}{}. {indented}", index + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_how_to_fix_it() {
        let problem = Problem::error(
            "auth.keys[0].secret_file",
            "file not found: /run/secrets/jwt",
            "mount the secret",
        )
        .at(At::File {
            file: "conclave.toml".into(),
            line: 12,
        });
        assert_eq!(
            problem.to_string(),
            "error: auth.keys[0].secret_file: file not found: /run/secrets/jwt\n  \
             set in conclave.toml line 12\n  help: mount the secret"
        );
    }

    #[test]
    fn the_short_form_of_a_place_can_be_read_back() {
        for at in [
            At::File {
                file: "etc/conclave.toml".into(),
                line: 7,
            },
            At::Environment("CONCLAVE_AUTH__KEYS__0__SECRET".to_owned()),
            At::Flag("--listen".to_owned()),
        ] {
            assert_eq!(At::from_short(&at.short()), Some(at));
        }
        assert_eq!(At::from_short(""), None);
    }

    #[test]
    fn several_are_numbered() {
        let all = Problems(vec![
            Problem::error("a", "bad", ""),
            Problem::warning("", "odd", "look"),
        ]);
        assert_eq!(all.to_string(), "1. error: a: bad\n\n2. warning: odd\n     help: look");
        assert_eq!(all.errors(), 1);
    }
}
