//! Settings by key and type.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::listen::{Listen, Networks, UNIX_PREFIX, UNIX_WORD};
use super::problem::Problem;
use super::settings::Settings;
use super::value::Value;
use super::{check, files};

/// Typed reading. A key of the wrong kind would be a slip in `default.toml`, which a test finds; it reads as
/// nothing or zero.
pub struct Read<'a>(pub &'a Settings);

impl Read<'_> {
    /// Whether a flag is set.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.0.value(key), Some(Value::Bool(true)))
    }

    /// Whole numbers; ranges in `default.toml` keep them within every type used here.
    pub fn number<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        match self.0.value(key) {
            Some(Value::Integer(number)) => T::try_from(*number).unwrap_or_default(),
            _ => T::default(),
        }
    }

    /// A number with a fraction.
    pub fn float(&self, key: &str) -> f64 {
        match self.0.value(key) {
            Some(Value::Float(number)) => *number,
            _ => 0.0,
        }
    }

    /// A time.
    pub fn duration(&self, key: &str) -> Duration {
        match self.0.value(key) {
            Some(Value::Duration(time)) => *time,
            _ => Duration::ZERO,
        }
    }

    /// Bytes.
    pub fn size(&self, key: &str) -> usize {
        match self.0.value(key) {
            Some(Value::Size(bytes)) => usize::try_from(*bytes).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    /// An IP address and port.
    pub fn address(&self, key: &str) -> SocketAddr {
        match self.0.value(key) {
            Some(Value::Address(address)) => *address,
            _ => SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// Where clients are served.
    pub fn listen(&self, key: &str) -> Listen {
        match self.0.value(key) {
            Some(Value::Text(text)) => Listen::Unix(text.strip_prefix(UNIX_PREFIX).unwrap_or(text).into()),
            _ => Listen::Tcp(self.address(key)),
        }
    }

    /// The mode of a file, in octal digits.
    pub fn mode(&self, key: &str, problems: &mut Vec<Problem>) -> u32 {
        let text = self.text(key);
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.unwrap_or_else(|| {
            let what = format!("\"{text}\" is not the mode of a file");
            problems.push(Problem::error(
                key,
                what,
                "write three or four octal digits such as \"0660\"",
            ));
            0o600
        })
    }

    /// Text, a word or a path, if it is set.
    pub fn optional(&self, key: &str) -> Option<String> {
        match self.0.value(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Text, empty when it is not set.
    pub fn text(&self, key: &str) -> String {
        self.optional(key).unwrap_or_default()
    }

    /// A path, empty when it is not set.
    pub fn path(&self, key: &str) -> PathBuf {
        PathBuf::from(self.text(key))
    }

    /// A list, empty when it is not set.
    pub fn list(&self, key: &str) -> Vec<String> {
        match self.0.value(key) {
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        }
    }

    /// Networks, those that are well formed.
    pub fn networks(&self, key: &str, problems: &mut Vec<Problem>) -> Networks {
        let mut networks = Networks::default();
        for entry in self.list(key) {
            if entry == UNIX_WORD {
                networks.unix = true;
                continue;
            }
            match (entry.parse::<IpNet>(), entry.parse::<IpAddr>()) {
                (Ok(network), _) => networks.networks.push(network),
                (_, Ok(address)) => problems.push(Problem::error(
                    key,
                    format!("\"{entry}\" is an address, not a network"),
                    format!("did you mean \"{}\"?", IpNet::from(address)),
                )),
                _ => problems.push(Problem::error(
                    key,
                    format!("\"{entry}\" is not a network"),
                    "write an address and the length of its prefix, such as \"10.0.0.0/8\" or \"fd00::/8\", or \"unix\"",
                )),
            }
        }
        networks
    }

    /// The secret that `key` holds, or that the file it names holds.
    pub fn secret(&self, key: &str, problems: &mut Vec<Problem>) -> Option<SecretString> {
        match self.0.value(key)? {
            Value::Secret(secret) => Some(secret.clone()),
            Value::Text(path) => read_secret(key, Path::new(path), problems),
            _ => None,
        }
    }

    /// `name=value` from a list, or from the lines of a file.
    pub fn headers(&self, key: &str, problems: &mut Vec<Problem>) -> Vec<(String, SecretString)> {
        let lines = match self.0.value(key) {
            Some(Value::Secrets(list)) => list.clone(),
            Some(Value::Text(path)) => match read_secret(key, Path::new(path), problems) {
                Some(text) => text.expose_secret().lines().map(SecretString::from).collect(),
                None => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        let split = |line: &SecretString| {
            let (name, value) = line.expose_secret().split_once('=')?;
            Some((name.trim().to_owned(), SecretString::from(value.trim())))
        };
        let headers: Vec<_> = lines.iter().filter_map(split).collect();
        if headers.len() != lines.len() {
            problems.push(Problem::error(
                key,
                "a header without \"=\"",
                "write each as \"name=value\"",
            ));
        }
        headers
    }
}

fn read_secret(key: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<SecretString> {
    match files::read_secret(path) {
        Ok(secret) => {
            problems.extend(check::keys::private(key, path));
            Some(secret)
        }
        Err(what) => {
            problems.push(Problem::error(key, what, "put the file there, or correct the path"));
            None
        }
    }
}
