//! Whose token a probe shows. It is read for each probe and appears in no output.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::cli::token::{self, Wish};
use crate::cli::{Environment, Failure, dev};
use crate::config::{self, Key};

/// More than any token may have (8 KiB), so that a wrong file is not read whole.
const INPUT_BYTES_MAX: u64 = 64 * 1_024;
/// Of a token that is minted for one probe.
const LIFE: Duration = Duration::from_secs(300);
/// Where no flag says anything.
const VARIABLE: &str = "CONCLAVE_TOKEN";
/// The room of a token that allows any.
const ROOM: &str = "conclave-probe";

/// Where tokens come from.
pub enum Source {
    Given(SecretString),
    /// Read anew for each probe, so that it can be replaced while an exporter runs.
    File(PathBuf),
    /// Minted anew for each probe.
    Minted(Box<Key>),
}

impl Source {
    /// `--token -`.
    pub fn stdin() -> Result<Self, Failure> {
        let mut text = String::new();
        let read = std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format_args!("--token -: stdin cannot be read: {error}")))?;
        Ok(Self::Given(text.trim().to_owned().into()))
    }

    /// With the key of a server's configuration.
    pub fn signing(file: PathBuf, environment: &Environment) -> Result<Self, Failure> {
        let loaded = config::load(&environment.sources(Some(file)))?;
        let key = token::choose(&loaded.config.auth.keys, None)?;
        Ok(Self::Minted(Box::new(key.clone())))
    }

    /// Where no flag says anything: the environment, else what `conclave dev` made.
    pub fn implied(environment: &Environment) -> Option<Self> {
        let variable = environment
            .value(VARIABLE)
            .map(|token| Self::Given(token.trim().to_owned().into()));
        variable.or_else(|| dev::key(environment).map(|key| Self::Minted(Box::new(key))))
    }

    /// The token of one probe, or why there is none.
    pub fn token(&self) -> Result<SecretString, String> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::File(path) => {
                let mut text = String::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(INPUT_BYTES_MAX).read_to_string(&mut text))
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(text.trim().to_owned().into())
            }
            Self::Minted(key) => {
                let wish = Wish {
                    sub: "conclave-probe",
                    name: None,
                    ttl: LIFE,
                    rooms: &[],
                    probe: true,
                    claims: &[],
                };
                let minted = token::mint(&wish, key, SystemTime::now());
                minted
                    .map(|minted| minted.token.into())
                    .map_err(|_| "no token can be signed with this key".to_owned())
            }
        }
    }
}

/// What a token says, believed because it is one's own.
#[derive(Debug, Default)]
pub struct Claims {
    pub is_probe: bool,
    rooms: Vec<(String, Vec<String>)>,
    /// There is a `rooms` claim, so that only those are allowed.
    limited: bool,
}

impl Claims {
    /// Of a token that may be anything.
    pub fn read(token: &SecretString) -> Self {
        let payload = token.expose_secret().split('.').nth(1);
        let payload = payload.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<Value> = payload.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(claims) = claims else { return Self::default() };
        let rooms = claims.get("rooms").and_then(Value::as_object);
        let verbs = |verbs: &Value| {
            let verbs = verbs.as_array().into_iter().flatten().filter_map(Value::as_str);
            verbs.map(str::to_owned).collect()
        };
        Self {
            is_probe: claims.get("probe") == Some(&Value::Bool(true)),
            limited: rooms.is_some(),
            rooms: rooms
                .into_iter()
                .flatten()
                .map(|(pattern, allowed)| (pattern.clone(), verbs(allowed)))
                .collect(),
        }
    }

    /// A room in which this token may join and speak, if it says one.
    pub fn room(&self) -> String {
        let may_speak = |verbs: &[String]| {
            let has = |verb: &str| verbs.iter().any(|known| known == verb || known == "*");
            has("join") && has("chat")
        };
        if !self.limited {
            return ROOM.to_owned();
        }
        let mut fit = self
            .rooms
            .iter()
            .filter(|(_, verbs)| may_speak(verbs))
            .map(|(pattern, _)| pattern);
        let exact = fit.clone().find(|pattern| !pattern.ends_with('*'));
        let prefix = || fit.find_map(|pattern| pattern.strip_suffix('*').map(|prefix| format!("{prefix}{ROOM}")));
        exact.cloned().or_else(prefix).unwrap_or_else(|| ROOM.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(claims: Value) -> Claims {
        Claims::read(&format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims.to_string())).into())
    }

    #[test]
    fn the_room_is_one_that_the_token_allows() {
        for (rooms, expected) in [
            (json!({"lobby": ["join", "chat"], "*": ["list"]}), "lobby"),
            (json!({"lobby": ["join"], "team/*": ["*"], "a": ["join", "chat"]}), "a"),
            (json!({"lobby": ["join"], "team/*": ["*"]}), "team/conclave-probe"),
            (json!({"*": ["*"]}), ROOM),
            (json!({}), ROOM),
        ] {
            assert_eq!(claims(json!({"rooms": rooms})).room(), expected);
        }
        assert_eq!(claims(json!({})).room(), ROOM);
        assert!(claims(json!({"probe": true})).is_probe && !claims(json!({"probe": 1})).is_probe);
        assert!(!Claims::read(&"no token".to_owned().into()).is_probe);
    }
}
