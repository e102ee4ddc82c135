//! From what was asked for on the command line to a set of claims.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::cli::Failure;
use crate::config::Key;

/// The verbs of PROTOCOL.md section 1.
const VERBS: [&str; 5] = ["join", "chat", "list", "history", "*"];

/// What a token shall say.
pub struct Wish<'w> {
    pub sub: &'w str,
    pub name: Option<&'w str>,
    pub ttl: Duration,
    /// `PATTERN` or `PATTERN=VERB,VERB`; none means every verb in every room.
    pub rooms: &'w [String],
    /// Of a synthetic client, which nobody in a room notices and no metric of clients counts.
    pub probe: bool,
    /// `NAME=JSON`; these have the last word.
    pub claims: &'w [String],
}

impl Wish<'_> {
    /// The claims for `key`, and when they expire.
    pub fn claims(&self, key: &Key, now: SystemTime) -> Result<(Value, SystemTime), Failure> {
        let issued = seconds(now)?;
        let expires = issued.checked_add(self.ttl.as_secs()).filter(|at| *at < MAX_SECONDS);
        let expires = expires.ok_or_else(|| Failure::usage("--ttl: too long"))?;
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), json!(self.sub));
        claims.extend(self.name.map(|name| ("name".to_owned(), json!(name))));
        claims.insert("iat".to_owned(), json!(issued));
        claims.insert("exp".to_owned(), json!(expires));
        claims.extend(key.issuer.as_ref().map(|issuer| ("iss".to_owned(), json!(issuer))));
        claims.extend(key.audience.first().map(|audience| ("aud".to_owned(), json!(audience))));
        if !self.rooms.is_empty() {
            claims.insert("rooms".to_owned(), Value::Object(rooms(self.rooms)?));
        }
        if self.probe {
            claims.insert("probe".to_owned(), json!(true));
        }
        for claim in self.claims {
            let (name, value) = parse_claim(claim)?;
            claims.insert(name, value);
        }
        let expires = claims
            .get("exp")
            .and_then(Value::as_u64)
            .filter(|at| *at < MAX_SECONDS)
            .unwrap_or(expires);
        Ok((
            Value::Object(claims),
            SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
        ))
    }
}

/// The year 9999, the last that RFC 3339 can say.
const MAX_SECONDS: u64 = 253_402_300_800;

fn seconds(now: SystemTime) -> Result<u64, Failure> {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(since.as_secs())
}

fn rooms(wanted: &[String]) -> Result<Map<String, Value>, Failure> {
    wanted.iter().map(|wanted| parse_room(wanted)).collect()
}

/// The last `=` separates, for a pattern may hold one itself.
fn parse_room(text: &str) -> Result<(String, Value), Failure> {
    let (pattern, verbs) = text.rsplit_once('=').unwrap_or((text, "*"));
    let refuse = |why: &str| {
        Failure::usage(format_args!(
            "--room {text}: {why}\n  help: such as 'lobby' or 'team-42/*=join,chat'"
        ))
    };
    if pattern.is_empty() {
        return Err(refuse("the pattern is empty"));
    }
    if pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
        return Err(refuse("* may only end a pattern"));
    }
    let verbs: Vec<&str> = verbs.split(',').map(str::trim).collect();
    if let Some(unknown) = verbs.iter().find(|verb| !VERBS.contains(verb)) {
        return Err(refuse(&format!(
            "'{unknown}' is no verb; there are join, chat, list, history and *"
        )));
    }
    Ok((pattern.to_owned(), json!(verbs)))
}

/// What is no JSON is taken as a string, as people type it.
fn parse_claim(text: &str) -> Result<(String, Value), Failure> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(Failure::usage(format_args!(
            "--claim {text}: expected NAME=JSON, such as 'info={{\"team\":7}}'"
        )));
    };
    let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    Ok((name.to_owned(), value))
}
