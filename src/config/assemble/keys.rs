//! Entries of `auth.keys`.

use super::{Problem, Read, Settings, check, entries_of};
use crate::config::schema::KEYS;
use crate::config::{JwksUrl, Key, KeySource};
use crate::outbound::Target;

/// Where the key of an entry may come from: exactly one of these.
const KEY_SOURCES: [&str; 5] = ["secret_file", "secret", "public_key_file", "jwks_file", "jwks_url"];

/// What means something only beside `jwks_url`.
const ONLY_BY_URL: [&str; 2] = ["jwks_ca_file", "algorithms"];

pub(super) fn keys(settings: &mut Settings, problems: &mut Vec<Problem>) -> Vec<Key> {
    let indexes = entries_of(settings, KEYS, problems);
    indexes
        .into_iter()
        .filter_map(|index| key(settings, index, problems))
        .collect()
}

fn key(settings: &mut Settings, index: usize, problems: &mut Vec<Problem>) -> Option<Key> {
    let entry = format!("{KEYS}[{index}]");
    let dotted = |name: &str| format!("{entry}.{name}");
    let kept = settings.keep_highest(&KEY_SOURCES.map(dotted));
    let is_told = KEY_SOURCES.map(dotted).iter().any(|key| settings.is_tainted(key));
    if kept.len() != 1 {
        if !is_told {
            let what = match kept.len() {
                0 => "no key in this entry".to_owned(),
                _ => format!("{} are set together", kept.join(", ")),
            };
            problems.push(Problem::error(
                &entry,
                what,
                format!("set exactly one of {}", KEY_SOURCES.join(", ")),
            ));
        }
        return None;
    }
    let read = Read(settings);
    let path = || read.path(&kept[0]);
    let source = match kept[0].rsplit('.').next()? {
        "secret_file" => KeySource::SecretFile(path()),
        "secret" => KeySource::Secret(read.secret(&kept[0], problems)?),
        "public_key_file" => KeySource::PublicKeyFile(path()),
        "jwks_file" => KeySource::JwksFile(path()),
        _ => KeySource::JwksUrl(Box::new(jwks_url(&read, &kept[0], dotted, problems)?)),
    };
    if !matches!(source, KeySource::JwksUrl(_)) {
        problems.extend(only_by_url(&read, dotted));
    }
    let key = Key {
        algorithm: read.text(&dotted("algorithm")),
        source,
        kid: read.optional(&dotted("kid")),
        issuer: read.optional(&dotted("issuer")),
        audience: read.list(&dotted("audience")),
        user_prefix: read.text(&dotted("user_prefix")),
        set_in: settings.at(&entry).map_or_else(String::new, |at| at.short()),
    };
    problems.extend(check::keys::check(&entry, &key));
    Some(key)
}

/// The URL is not quoted: some write secrets there.
fn jwks_url(read: &Read, key: &str, dotted: impl Fn(&str) -> String, problems: &mut Vec<Problem>) -> Option<JwksUrl> {
    let target = match Target::parse(&read.text(key)) {
        Ok(target) => target,
        Err(what) => {
            let remedy = "write it as the issuer gives it, such as https://login.example.com/.well-known/jwks.json";
            problems.push(Problem::error(key, what, remedy));
            return None;
        }
    };
    Some(JwksUrl {
        target,
        ca_file: read.optional(&dotted("jwks_ca_file")).map(Into::into),
        algorithms: read.list(&dotted("algorithms")),
        refresh: read.duration("auth.jwks_refresh"),
        timeout: read.duration("auth.jwks_timeout"),
        minimum_gap: read.duration("auth.jwks_minimum_gap"),
        maximum_age: read.duration("auth.jwks_maximum_age"),
        grace: read.duration("auth.jwks_grace"),
    })
}

fn only_by_url(read: &Read, dotted: impl Fn(&str) -> String) -> Vec<Problem> {
    let is_set = |key: &String| read.0.value(key).is_some();
    (ONLY_BY_URL.iter().map(|name| dotted(name)))
        .filter(is_set)
        .map(|key| {
            Problem::error(
                key,
                "is for keys of a jwks_url only",
                "leave it out, or name a jwks_url",
            )
        })
        .collect()
}
