//! The claims of PROTOCOL.md section 1, each checked for its type and bounds. Pure.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::UnixSeconds;
use super::grants::Grants;
use crate::hub::User;

/// User id, token id and name each.
const WORD_BYTES_MAX: usize = 256;
/// `info`, as compact JSON.
const INFO_BYTES_MAX: usize = 1024;
/// The last second of the year 9999. Above it somebody wrote milliseconds, and the token would never expire.
const TIME_MAX: UnixSeconds = 253_402_300_799;

/// What a token says, well-formed but not yet believed.
#[derive(Default)]
pub(super) struct Claims {
    pub sub: String,
    pub exp: Option<UnixSeconds>,
    pub nbf: Option<UnixSeconds>,
    pub iat: Option<UnixSeconds>,
    pub iss: Option<String>,
    pub aud: Option<Vec<String>>,
    pub jti: Option<Box<str>>,
    pub rooms: Option<Grants>,
    /// A synthetic client, which real users must not notice.
    pub probe: bool,
    name: Option<String>,
    info: Option<Value>,
}

impl Claims {
    /// Takes the claims that we know out of `map`; the others are ignored.
    pub fn from_object(mut map: Map<String, Value>) -> Result<Self, &'static str> {
        let mut claims = Self {
            sub: sub(map.remove("sub"))?,
            ..Self::default()
        };
        let mut take = |name: &str| map.remove(name);
        claims.exp = take("exp")
            .map(|v| time(&v))
            .transpose()
            .map_err(|()| "exp is not a time in seconds")?;
        claims.nbf = take("nbf")
            .map(|v| time(&v))
            .transpose()
            .map_err(|()| "nbf is not a time in seconds")?;
        claims.iat = take("iat")
            .map(|v| time(&v))
            .transpose()
            .map_err(|()| "iat is not a time in seconds")?;
        claims.iss = take("iss")
            .map(string)
            .transpose()
            .map_err(|()| "iss is not a string")?;
        claims.aud = take("aud")
            .map(strings)
            .transpose()
            .map_err(|()| "aud is neither a string nor an array of strings")?;
        claims.jti = take("jti").map(jti).transpose()?;
        claims.name = take("name").map(name).transpose()?;
        claims.info = take("info").map(info).transpose()?;
        claims.rooms = take("rooms").map(|v| rooms(&v)).transpose()?;
        // No claim of the protocol: an application may use the word for something else, and is left alone.
        claims.probe = take("probe") == Some(Value::Bool(true));
        Ok(claims)
    }

    /// The user as room mates see them: `{"id":"u7","name":"Ann","info":{…}}`.
    pub fn user_json(&self, user_id: &str) -> Arc<str> {
        let mut json = format!("{{\"id\":{}", Value::from(user_id));
        if let Some(name) = &self.name {
            json.push_str(",\"name\":");
            json.push_str(&Value::from(name.as_str()).to_string());
        }
        if let Some(info) = &self.info {
            json.push_str(",\"info\":");
            json.push_str(&info.to_string());
        }
        json.push('}');
        json.into()
    }
}

/// A user as an application names it, held to what a token may say.
pub(super) fn public_user(
    id: &str,
    name_said: Option<&str>,
    info_said: Option<&Map<String, Value>>,
) -> Result<User, &'static str> {
    if !is_user_id(id) {
        return Err("id is empty, longer than 256 bytes, or has control characters");
    }
    let claims = Claims {
        name: name_said.map(|said| name(Value::from(said))).transpose()?,
        info: info_said.map(|said| info(Value::Object(said.clone()))).transpose()?,
        ..Claims::default()
    };
    Ok(User {
        id: id.into(),
        json: claims.user_json(id),
    })
}

/// Whether `text` may be a user id: 1 to 256 bytes, no control characters.
pub(super) fn is_user_id(text: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

fn sub(value: Option<Value>) -> Result<String, &'static str> {
    let sub = match value {
        None => return Err("sub is missing"),
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
        Some(_) => return Err("sub is neither a string nor an integer"),
    };
    if is_user_id(&sub) {
        Ok(sub)
    } else {
        Err("sub is empty, longer than 256 bytes, or has control characters")
    }
}

/// Seconds, fractions cut. RFC 7519 section 2 allows fractions in a NumericDate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in this range the cast only cuts the fraction"
)]
fn time(value: &Value) -> Result<UnixSeconds, ()> {
    let seconds = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => seconds,
        (None, Some(seconds)) if seconds >= 0.0 && seconds <= TIME_MAX as f64 => seconds as u64,
        _ => return Err(()),
    };
    if seconds <= TIME_MAX { Ok(seconds) } else { Err(()) }
}

fn string(value: Value) -> Result<String, ()> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(()),
    }
}

fn strings(value: Value) -> Result<Vec<String>, ()> {
    match value {
        Value::Array(items) => items.into_iter().map(string).collect(),
        one => string(one).map(|text| vec![text]),
    }
}

fn jti(value: Value) -> Result<Box<str>, &'static str> {
    match value {
        Value::String(text) if text.len() <= WORD_BYTES_MAX => Ok(text.into()),
        _ => Err("jti is not a string of at most 256 bytes"),
    }
}

pub(super) fn name(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) if text.len() <= WORD_BYTES_MAX && !text.contains(char::is_control) => Ok(text),
        _ => Err("name is not a string of at most 256 bytes without control characters"),
    }
}

pub(super) fn info(value: Value) -> Result<Value, &'static str> {
    if value.is_object() && value.to_string().len() <= INFO_BYTES_MAX {
        Ok(value)
    } else {
        Err("info is not an object of at most 1 KiB")
    }
}

fn rooms(value: &Value) -> Result<Grants, &'static str> {
    Grants::from_claim(value.as_object().ok_or("rooms is not an object")?)
}
