//! `[api]` and `[[api.keys]]`: who may call the server API. A key's hash is all that is known of it.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::assemble::entries_of;
use super::document;
use super::problem::{Problem, Severity};
use super::read::Read;
use super::settings::Settings;
use crate::api::caller::{Scope, Scopes};
use crate::api::keys;
use crate::limits::ROOM_BYTES_MAX;

/// The array of tables.
pub const KEYS: &str = "api.keys";
/// Longest name of a key, in bytes: it is in every line of the audit log.
const NAME_BYTES_MAX: usize = 64;
/// Most patterns of one key.
const ROOMS_MAX: usize = 256;

const NEW_KEY: &str = "\"conclave api-key new\" makes a key and prints this entry";

/// The server API.
#[derive(Debug, Clone)]
pub struct Api {
    pub keys: Vec<ApiKey>,
    /// Whether tokens of `auth.keys` may call it, if they carry a scope.
    pub jwt: bool,
    /// Id of the user who says what a request says without naming one.
    pub user: String,
    /// The claim with the scopes.
    pub scope_claim: String,
    /// What a scope begins with there.
    pub scope_prefix: String,
    /// Per key, or user of tokens, on this node.
    pub requests_per_second: NonZeroU32,
    /// How many may come at once; 0: as many as per second.
    pub requests_burst: u32,
    /// Longest body of a request.
    pub body_bytes: usize,
    /// Requests that are served at the same time.
    pub in_flight: usize,
    /// How long the answer to an `Idempotency-Key` is kept.
    pub idempotency: Duration,
    /// Bytes of such answers on a node without a shared backplane.
    pub idempotency_bytes: usize,
}

impl Api {
    /// Whether anybody may call it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.jwt || !self.keys.is_empty()
    }
}

/// One `[[api.keys]]` entry.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// For the audit log.
    pub name: String,
    pub digest: keys::Digest,
    pub scopes: Scopes,
    /// Names of rooms, or beginnings with a `*` after them; none: all rooms.
    pub rooms: Vec<String>,
    /// 0: `api.requests_per_second`.
    pub requests_per_second: u32,
    /// Unix seconds.
    pub expires_at: Option<u64>,
}

/// What is wrong with an entry that was just made, as `check-config` would say it, warnings left out.
#[must_use]
pub fn api_key_problems(entry: &str) -> Vec<Problem> {
    let mut settings = Settings::defaults();
    let mut problems = Vec::new();
    match document::read(Path::new("conclave.toml"), entry) {
        Ok(layer) => problems.extend(settings.lay(layer)),
        Err(problem) => problems.push(problem),
    }
    api(&settings, &mut problems);
    problems.retain(|problem| problem.severity == Severity::Error);
    problems
}

pub(super) fn api(settings: &Settings, problems: &mut Vec<Problem>) -> Api {
    let indexes = entries_of(settings, KEYS, problems);
    let read = Read(settings);
    let mut keys: Vec<ApiKey> = Vec::new();
    for index in indexes {
        let entry = format!("{KEYS}[{index}]");
        let Some(key) = key(&read, &entry, problems) else {
            continue;
        };
        if keys.iter().any(|other| other.name == key.name) {
            problems.push(Problem::error(
                format!("{entry}.name"),
                format!(
                    "a second key called \"{}\": the audit log could not tell them apart",
                    key.name
                ),
                "give each key a name of its own",
            ));
        }
        if keys.iter().any(|other| other.digest == key.digest) {
            problems.push(Problem::error(
                format!("{entry}.hash"),
                "the key of another entry, once more",
                NEW_KEY,
            ));
        }
        keys.push(key);
    }
    Api {
        keys,
        jwt: read.flag("api.jwt"),
        user: user(&read, problems),
        scope_claim: read.text("api.scope_claim"),
        scope_prefix: read.text("api.scope_prefix"),
        requests_per_second: NonZeroU32::new(read.number("api.requests_per_second")).unwrap_or(NonZeroU32::MIN),
        requests_burst: read.number("api.requests_burst"),
        body_bytes: read.size("api.body_bytes"),
        in_flight: read.number("api.in_flight"),
        idempotency: read.duration("api.idempotency"),
        idempotency_bytes: read.size("api.idempotency_bytes"),
    }
}

fn user(read: &Read, problems: &mut Vec<Problem>) -> String {
    let user = read.text("api.user");
    if let Err(why) = crate::auth::public_user(&user, None, None) {
        problems.push(Problem::error(
            "api.user".to_owned(),
            format!("no user can be called so: {why}"),
            "name a user that no person has, such as \"app\"",
        ));
    }
    user
}

fn key(read: &Read, entry: &str, problems: &mut Vec<Problem>) -> Option<ApiKey> {
    let dotted = |name: &str| format!("{entry}.{name}");
    let before = problems.len();
    let name = read.text(&dotted("name"));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let what = match name.as_str() {
            "" => "the key has no name".to_owned(),
            _ => format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters"),
        };
        problems.push(Problem::error(
            dotted("name"),
            what,
            "such as \"backend\": the audit log has it",
        ));
    }
    let digest = hash(&dotted("hash"), &read.text(&dotted("hash")), problems);
    let scopes = scopes(&dotted("scopes"), &read.list(&dotted("scopes")), problems);
    let rooms = read.list(&dotted("rooms"));
    check_rooms(&dotted("rooms"), &rooms, problems);
    if !rooms.is_empty()
        && [Scope::Message, Scope::Kick, Scope::Revoke]
            .iter()
            .any(|scope| scopes.has(*scope))
    {
        problems.push(Problem::warning(
            dotted("rooms"),
            "the scopes message, kick and revoke are about users as well, who are not in these rooms alone",
            "give those scopes to another key, or leave this as it is",
        ));
    }
    let expires_at = expires(&dotted("expires"), &read.text(&dotted("expires")), problems);
    let is_good = problems[before..]
        .iter()
        .all(|problem| problem.severity != Severity::Error);
    Some(ApiKey {
        name,
        digest: digest.filter(|_| is_good)?,
        scopes,
        rooms,
        requests_per_second: read.number(&dotted("requests_per_second")),
        expires_at,
    })
}

/// What is there is not quoted: it may be the key itself, put there by a slip.
fn hash(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<keys::Digest> {
    let digest = keys::parse_hash(text);
    if digest.is_none() {
        let what = match text {
            "" => "the key has no hash",
            text if text.starts_with(keys::PREFIX) => {
                "this is the key itself and not its hash: whoever has read this file may call the API with it"
            }
            _ => "not a hash: it is \"sha256:\" and 64 hexadecimal digits",
        };
        problems.push(Problem::error(key, what, NEW_KEY));
    }
    digest
}

fn scopes(key: &str, words: &[String], problems: &mut Vec<Problem>) -> Scopes {
    let mut scopes = Scopes::default();
    let known = Scope::ALL.map(Scope::as_str).join(", ");
    for word in words {
        if !scopes.add(word) {
            problems.push(Problem::error(
                key,
                format!("no such scope: \"{word}\""),
                format!("there are {known}, and * for all"),
            ));
        }
        if word == Scopes::EVERY_WORD {
            problems.push(Problem::warning(
                key,
                "the scope * lets whoever has this key do everything, kick and revoke included",
                format!("name those it needs: {known}"),
            ));
        }
    }
    if words.is_empty() {
        problems.push(Problem::error(
            key,
            "the key has no scope: it may do nothing",
            format!("name some: {known}"),
        ));
    }
    scopes
}

fn check_rooms(key: &str, patterns: &[String], problems: &mut Vec<Problem>) {
    for pattern in patterns {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        if pattern.is_empty() || name.len() > ROOM_BYTES_MAX || name.contains('*') {
            problems.push(Problem::error(
                key,
                format!("\"{pattern}\" is neither a room's name nor the beginning of one with a * after it"),
                "write \"lobby\" or \"team-42/*\"",
            ));
        }
    }
    if patterns.len() > ROOMS_MAX {
        problems.push(Problem::error(
            key,
            format!("more than {ROOMS_MAX} patterns"),
            "use beginnings: \"team/*\"",
        ));
    }
}

/// A date, or a moment of RFC 3339.
fn expires(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let whole = if text.len() == "2027-01-31".len() {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    let Ok(at) = humantime::parse_rfc3339_weak(&whole) else {
        problems.push(Problem::error(
            key,
            format!("\"{text}\" is not a date"),
            "write 2027-01-31, or 2027-01-31T18:00:00Z",
        ));
        return None;
    };
    if at <= SystemTime::now() {
        problems.push(Problem::warning(
            key,
            format!("the key has expired on {text}: whoever has it is refused"),
            "remove the entry; \"conclave api-key new\" makes another key",
        ));
    }
    at.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:9a1b03fea521b36a091cdc51f0b668949329787e9beedb5b7a200a9fd9f970ad";

    fn problems(entries: &str) -> Vec<(String, Severity)> {
        let mut settings = Settings::defaults();
        let layer = document::read(Path::new("conclave.toml"), entries).unwrap();
        let mut problems = settings.lay(layer);
        let config = api(&settings, &mut problems);
        assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
        assert!(
            problems.iter().all(|problem| !problem.what.contains("ck_secret")),
            "{problems:?}"
        );
        assert!(config.is_on() || problems.iter().any(|problem| problem.severity == Severity::Error));
        problems
            .into_iter()
            .map(|problem| (problem.key, problem.severity))
            .collect()
    }

    fn entry(name: &str, hash: &str, rest: &str) -> String {
        format!("[[api.keys]]\nname = \"{name}\"\nhash = \"{hash}\"\n{rest}\n")
    }

    #[test]
    fn every_mistake_in_an_entry_is_named() {
        let good = entry("a", HASH, "scopes = [\"read\"]");
        let error = |key: &str| vec![(key.to_owned(), Severity::Error)];
        let warning = |key: &str| vec![(key.to_owned(), Severity::Warning)];
        assert_eq!(problems(&good), []);
        assert_eq!(
            problems(&entry("", HASH, "scopes = [\"read\"]")),
            error("api.keys[0].name")
        );
        assert_eq!(
            problems(&entry("a", "", "scopes = [\"read\"]")),
            error("api.keys[0].hash")
        );
        assert_eq!(
            problems(&entry("a", "ck_secret", "scopes = [\"read\"]")),
            error("api.keys[0].hash")
        );
        assert_eq!(problems(&entry("a", HASH, "")), error("api.keys[0].scopes"));
        assert_eq!(
            problems(&entry("a", HASH, "scopes = [\"fly\"]")),
            error("api.keys[0].scopes")
        );
        assert_eq!(
            problems(&entry("a", HASH, "scopes = [\"*\"]")),
            warning("api.keys[0].scopes")
        );
        let rooms = |pattern: &str| entry("a", HASH, &format!("scopes = [\"read\"]\nrooms = [\"{pattern}\"]"));
        assert_eq!(problems(&rooms("team/*")), []);
        assert_eq!(problems(&rooms("a*b")), error("api.keys[0].rooms"));
        let ends = |at: &str| entry("a", HASH, &format!("scopes = [\"read\"]\nexpires = \"{at}\""));
        assert_eq!(problems(&ends("9999-01-31")), []);
        assert_eq!(problems(&ends("soon")), error("api.keys[0].expires"));
        assert_eq!(problems(&ends("2020-01-31T10:00:00Z")), warning("api.keys[0].expires"));
        let other = HASH.replace('9', "8");
        let twice = [good.clone(), entry("a", &other, "scopes = [\"read\"]")].concat();
        assert_eq!(problems(&twice), error("api.keys[1].name"));
        let twice = [good, entry("b", HASH, "scopes = [\"read\"]")].concat();
        assert_eq!(problems(&twice), error("api.keys[1].hash"));
    }
}
