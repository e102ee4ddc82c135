//! Variables and flags: text for dotted keys. The variables come from `main`; nothing here asks the process.

use super::problem::{At, Problem};
use super::schema::{Entry, OLD_ROOM, ROOM, SCHEMA};
use super::settings::Layer;
use super::suggest;

/// What the name of every variable of ours starts with.
pub const PREFIX: &str = "CONCLAVE_";

/// Variables that are ours and no keys: the configuration file, where `dev` keeps its files, the token of `probe`.
const NO_KEYS: [&str; 3] = ["CONCLAVE_CONFIG", "CONCLAVE_STATE_DIR", "CONCLAVE_TOKEN"];

/// Reads the variables that start with [`PREFIX`] and leaves all others alone.
pub fn read(variables: &[(String, String)]) -> Layer {
    let mut layer = Layer::default();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if NO_KEYS.contains(&name.as_str()) || is_service_link(rest, text) {
            continue;
        }
        if let Some(entry) = find_old(rest) {
            take_old(&mut layer, entry, name, text, variables);
            continue;
        }
        match find(rest) {
            Some((entry, index)) => take(&mut layer, entry, index, text, At::Environment(name.clone())),
            None => layer.refuse(unknown(name, rest)),
        }
    }
    layer
}

/// The key that `ROOMS__USERS_SHOWN` names, from the time before there were classes of rooms.
fn find_old(rest: &str) -> Option<&'static Entry> {
    let name = rest.strip_prefix(&OLD_ROOM.to_ascii_uppercase())?.strip_prefix("__")?;
    let is_upper = !name.bytes().any(|byte| byte.is_ascii_lowercase());
    is_upper.then(|| SCHEMA.find(ROOM, &name.to_ascii_lowercase()))?
}

/// A variable by its old name, which says so, and goes behind the new one.
fn take_old(layer: &mut Layer, entry: &Entry, name: &str, text: &str, variables: &[(String, String)]) {
    let new = entry.variable();
    let at = At::Environment(name.to_owned());
    layer.refuse(Problem::warning(name, format!("is now {new}"), "rename it").at(at.clone()));
    if !variables.iter().any(|(known, _)| *known == new) {
        take(layer, entry, None, text, at);
    }
}

/// Reads flags: dotted key, text, and the flag's name for messages.
pub fn read_flags(overrides: &[(String, String, String)]) -> Layer {
    let mut layer = Layer::default();
    for (key, text, flag) in overrides {
        let at = At::Flag(flag.clone());
        match find_dotted(key) {
            Some(entry) => take(&mut layer, entry, None, text, at),
            None => layer.refuse(Problem::error(key, "unknown key", "").at(at)),
        }
    }
    layer
}

fn take(layer: &mut Layer, entry: &Entry, index: Option<usize>, text: &str, at: At) {
    if let Some(index) = index {
        layer.has_entry(&entry.section, index, at.clone());
    }
    layer.take(entry, index, entry.kind.read_text(text), at);
}

/// The key that `SERVER__LISTEN` or `AUTH__KEYS__0__KID` names.
fn find(rest: &str) -> Option<(&'static Entry, Option<usize>)> {
    if rest.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let rest = rest.to_ascii_lowercase();
    if let Some((array, key)) = in_array(&rest) {
        let (number, name) = key.split_once("__")?;
        return Some((SCHEMA.find(array, name)?, Some(number.parse().ok()?)));
    }
    let (section, name) = in_section(&rest)?;
    Some((SCHEMA.find(section, name)?, None))
}

/// `auth.keys` and `0__kid` for `auth__keys__0__kid`.
fn in_array(rest: &str) -> Option<(&'static str, &str)> {
    SCHEMA.arrays().find_map(|array| {
        let key = rest.strip_prefix(&array.replace('.', "__"))?.strip_prefix("__")?;
        Some((array, key))
    })
}

/// `auth.forward` and `url` for `auth__forward__url`: the longest section counts.
fn in_section(rest: &str) -> Option<(&'static str, &str)> {
    let known = SCHEMA.sections().filter_map(|section| {
        let key = rest.strip_prefix(&section.replace('.', "__"))?.strip_prefix("__")?;
        Some((section, key))
    });
    known.max_by_key(|(section, _)| section.len())
}

fn find_dotted(key: &str) -> Option<&'static Entry> {
    let (section, name) = key.rsplit_once('.')?;
    SCHEMA.find(section, name).filter(|entry| !entry.is_repeated)
}

/// Kubernetes gives every container such variables for each Service of its namespace, so a Service called
/// `conclave` must not keep us from starting.
fn is_service_link(rest: &str, text: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let is_part = |mark: &str| {
        rest.find(mark)
            .is_some_and(|at| rest[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    !rest.contains("__")
        && (rest.ends_with("SERVICE_HOST")
            || rest.ends_with("SERVICE_PORT")
            || rest.contains("SERVICE_PORT_")
            || (rest.ends_with("PORT") && is_address)
            || is_part("PORT_"))
}

fn unknown(name: &str, rest: &str) -> Problem {
    let flat = |name: &str| name.to_uppercase().replace("__", "_");
    let same = SCHEMA
        .entries
        .iter()
        .find(|entry| flat(&entry.variable()) == flat(name));
    let parts = || {
        let rest = rest.to_lowercase();
        let (section, key) = match in_array(&rest) {
            Some((array, key)) => (array, key.split_once("__").map_or(key, |(_, key)| key)),
            None => rest.split_once("__")?,
        };
        suggest::nearest_key(section, key)
    };
    let bare = || {
        SCHEMA
            .entries
            .iter()
            .find(|entry| entry.name.eq_ignore_ascii_case(rest))
    };
    let like = || {
        let known: Vec<String> = SCHEMA.entries.iter().map(Entry::variable).collect();
        let nearest = suggest::nearest(rest, known.iter().filter_map(|name| name.strip_prefix(PREFIX)))?;
        SCHEMA
            .entries
            .iter()
            .find(|entry| entry.variable().strip_prefix(PREFIX) == Some(nearest))
    };
    let remedy = match same.or_else(parts).or_else(bare).or_else(like) {
        Some(entry) => format!("did you mean {}?", entry.variable()),
        None => "\"conclave config env\" lists the variables".to_owned(),
    };
    Problem::error(name, "unknown variable", remedy).at(At::Environment(name.to_owned()))
}
