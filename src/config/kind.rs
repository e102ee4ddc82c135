//! What kinds of value there are, how each is written in a file or a variable, and what is in range.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use secrecy::SecretString;

use super::listen::{UNIX_PATH_BYTES_MAX, UNIX_PREFIX};
use super::value::{Value, show_duration, show_size};

/// What may be written for a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Bool,
    Integer(RangeInclusive<i64>),
    Float(RangeInclusive<f64>),
    /// Text with a unit.
    Duration(RangeInclusive<Duration>),
    /// Bytes: text with a unit, or a bare number.
    Size(RangeInclusive<u64>),
    /// IP address and port.
    Address,
    /// That, or the path of a unix socket.
    Listen,
    Text,
    Path,
    /// One of a few.
    Word(Vec<String>),
    List,
    /// Text that is never shown.
    Secret,
    /// A list of `name=value`, whose values are never shown.
    Secrets,
}

/// Why something written is not a value of its kind. Never quotes a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    pub what: String,
    /// Something better than "it takes ..."; empty when there is nothing.
    pub remedy: String,
}

impl Mismatch {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: String::new(),
        }
    }
}

impl Kind {
    /// Reads an annotation of `default.toml`, such as `duration 1s..10m`.
    pub fn parse(annotation: &str) -> Result<Self, String> {
        let (word, rest) = annotation.split_once(' ').unwrap_or((annotation, ""));
        Ok(match word {
            "bool" => Self::Bool,
            "integer" => Self::Integer(bounds(rest, |text| text.parse().ok())?),
            "float" => Self::Float(bounds(rest, |text| text.parse().ok())?),
            "duration" => Self::Duration(bounds(rest, |text| humantime::parse_duration(text).ok())?),
            "size" => Self::Size(bounds(rest, |text| {
                text.parse::<ByteSize>().ok().map(|size| size.as_u64())
            })?),
            "address" => Self::Address,
            "listen" => Self::Listen,
            "text" => Self::Text,
            "path" => Self::Path,
            "word" => Self::Word(rest.split('|').map(|word| word.trim().to_owned()).collect()),
            "list" => Self::List,
            "secret" => Self::Secret,
            "secrets" => Self::Secrets,
            _ => return Err(format!("unknown kind {word}")),
        })
    }

    /// Whether values of this kind must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret | Self::Secrets)
    }

    /// What may be written, with an article.
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Integer(_) => "a whole number".to_owned(),
            Self::Float(_) => "a number".to_owned(),
            Self::Duration(_) => "a duration with its unit such as \"30s\"".to_owned(),
            Self::Size(_) => "a size with its unit such as \"64KiB\", or a number of bytes".to_owned(),
            Self::Address => "an IP address with a port such as \"127.0.0.1:9464\" or \"[::]:8443\"".to_owned(),
            Self::Listen => format!("{}, or \"unix:PATH\"", Self::Address.expected()),
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Word(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(" or "),
            Self::List => "a list of texts".to_owned(),
            Self::Secrets => "a list of texts, each \"name=value\"".to_owned(),
        }
    }

    /// Kind in a word or two, for tables.
    pub fn shown(&self) -> String {
        match self {
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Integer(_) => "integer".to_owned(),
            Self::Float(_) => "number".to_owned(),
            Self::Duration(_) => "duration".to_owned(),
            Self::Size(_) => "bytes".to_owned(),
            Self::Address => "address".to_owned(),
            Self::Listen => "address or `unix:PATH`".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Word(words) => words
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Self::List => "list".to_owned(),
            Self::Secret => "secret".to_owned(),
            Self::Secrets => "list of secrets".to_owned(),
        }
    }

    /// `1s to 10m`, where there is a range.
    pub fn range_shown(&self) -> Option<String> {
        match self {
            Self::Integer(range) => Some(format!("{} to {}", range.start(), range.end())),
            Self::Float(range) => Some(format!("{} to {}", range.start(), range.end())),
            Self::Duration(range) => Some(format!(
                "{} to {}",
                show_duration(*range.start()),
                show_duration(*range.end())
            )),
            Self::Size(range) => Some(format!("{} to {}", show_size(*range.start()), show_size(*range.end()))),
            _ => None,
        }
    }

    /// Reads a value as a variable or a flag has it.
    pub fn read_text(&self, text: &str) -> Result<Value, Mismatch> {
        let wrong = || Mismatch::new(format!("expected {}, found \"{text}\"", self.expected()));
        let value = match self {
            Self::Bool => Value::Bool(text.parse().map_err(|_| wrong())?),
            Self::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong())?),
            Self::Float(_) => Value::Float(text.parse().map_err(|_| wrong())?),
            Self::Duration(_) => Value::Duration(humantime::parse_duration(text).map_err(|_| wrong())?),
            Self::Size(_) => Value::Size(text.parse::<ByteSize>().map_err(|_| wrong())?.as_u64()),
            Self::Address => Value::Address(read_address(text)?),
            Self::Listen => read_listen(text)?,
            Self::Text | Self::Path => Value::Text(text.to_owned()),
            Self::Word(words) => read_word(words, text, wrong())?,
            Self::List => Value::List(split_list(text)),
            Self::Secret => Value::Secret(text.into()),
            Self::Secrets => Value::Secrets(split_list(text).into_iter().map(SecretString::from).collect()),
        };
        self.in_range(value)
    }

    /// Reads a value of a TOML file. A list may be a single text.
    pub fn read_toml(&self, item: &toml_edit::Value) -> Result<Value, Mismatch> {
        let value = match self {
            Self::Bool => item.as_bool().map(Value::Bool),
            Self::Integer(_) => item.as_integer().map(Value::Integer),
            Self::Float(_) => item
                .as_float()
                .or(item.as_integer().map(|number| number as f64))
                .map(Value::Float),
            Self::Size(_) if item.is_integer() => {
                let bytes = item.as_integer().and_then(|bytes| u64::try_from(bytes).ok());
                Some(Value::Size(
                    bytes.ok_or_else(|| Mismatch::new("a size cannot be negative"))?,
                ))
            }
            Self::List => read_list(item).map(Value::List),
            Self::Secrets => {
                read_list(item).map(|list| Value::Secrets(list.into_iter().map(SecretString::from).collect()))
            }
            _ => match item.as_str() {
                Some(text) => return self.read_text(text),
                None => None,
            },
        };
        let Some(value) = value else {
            return Err(Mismatch::new(format!(
                "expected {}, found {}",
                self.expected(),
                self.describe(item)
            )));
        };
        self.in_range(value)
    }

    /// What stands in the file instead; the value itself only where it can be no secret.
    fn describe(&self, item: &toml_edit::Value) -> String {
        match item {
            toml_edit::Value::Integer(number) if !self.is_secret() => {
                format!("the number {}", number.value())
            }
            toml_edit::Value::Float(number) if !self.is_secret() => {
                format!("the number {}", number.value())
            }
            toml_edit::Value::Boolean(flag) if !self.is_secret() => format!("{}", flag.value()),
            toml_edit::Value::String(text) if !self.is_secret() => {
                format!("the text \"{}\"", text.value())
            }
            toml_edit::Value::Array(_) => "a list".to_owned(),
            toml_edit::Value::InlineTable(_) => "a table".to_owned(),
            toml_edit::Value::Datetime(_) => "a date".to_owned(),
            _ => "something else".to_owned(),
        }
    }

    fn in_range(&self, value: Value) -> Result<Value, Mismatch> {
        let is_inside = match (self, &value) {
            (Self::Integer(range), Value::Integer(number)) => range.contains(number),
            // Neither NaN nor an infinity is contained in a range.
            (Self::Float(range), Value::Float(number)) => range.contains(number),
            (Self::Duration(range), Value::Duration(time)) => range.contains(time),
            (Self::Size(range), Value::Size(bytes)) => range.contains(bytes),
            _ => true,
        };
        if is_inside {
            return Ok(value);
        }
        let range = self.range_shown().unwrap_or_default();
        Err(Mismatch::new(format!("{} is out of range, {range}", value.show())))
    }
}

fn bounds<T: PartialOrd>(text: &str, read: impl Fn(&str) -> Option<T>) -> Result<RangeInclusive<T>, String> {
    let (start, end) = text.split_once("..").ok_or_else(|| format!("no range in \"{text}\""))?;
    match (read(start), read(end)) {
        (Some(start), Some(end)) if start < end => Ok(start..=end),
        _ => Err(format!("not a range: {text}")),
    }
}

fn read_address(text: &str) -> Result<SocketAddr, Mismatch> {
    text.parse().map_err(|_| {
        let mut mismatch = Mismatch::new(format!("expected {}, found \"{text}\"", Kind::Address.expected()));
        mismatch.remedy = match text.rsplit_once(':') {
            Some(("" | "*", port)) => {
                format!("for every address of the machine write \"0.0.0.0:{port}\" or \"[::]:{port}\"")
            }
            Some(("localhost", port)) => {
                format!("write \"127.0.0.1:{port}\"; names are not looked up")
            }
            None if text.parse::<std::net::IpAddr>().is_ok() => "a port is missing".to_owned(),
            None if text.parse::<u16>().is_ok() => {
                format!("write \"0.0.0.0:{text}\" for every address of the machine")
            }
            _ => String::new(),
        };
        mismatch
    })
}

fn read_listen(text: &str) -> Result<Value, Mismatch> {
    let Some(path) = text.strip_prefix(UNIX_PREFIX) else {
        return read_address(text).map(Value::Address);
    };
    let what = match path.len() {
        0 => "a path is missing after \"unix:\"".to_owned(),
        1..=UNIX_PATH_BYTES_MAX if !path.contains('\0') => return Ok(Value::Text(text.to_owned())),
        _ => format!("a unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes"),
    };
    let remedy = "write for instance \"unix:/run/conclave/conclave.sock\"".to_owned();
    Err(Mismatch { what, remedy })
}

fn read_word(words: &[String], text: &str, wrong: Mismatch) -> Result<Value, Mismatch> {
    if words.iter().any(|word| word == text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let remedy = match super::suggest::nearest(text, words.iter().map(String::as_str)) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => String::new(),
    };
    Err(Mismatch { remedy, ..wrong })
}

fn read_list(item: &toml_edit::Value) -> Option<Vec<String>> {
    match item.as_str() {
        Some(only) => Some(vec![only.to_owned()]),
        None => item
            .as_array()?
            .iter()
            .map(|member| member.as_str().map(str::to_owned))
            .collect(),
    }
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty())
        .map(str::to_owned)
        .collect()
}
