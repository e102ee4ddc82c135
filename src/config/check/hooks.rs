//! Hooks: who is asked and told what, over which URL, signed with what.

use secrecy::{ExposeSecret, SecretString};

use crate::config::problem::Problem;
use crate::config::{Hooks, Limits};
use crate::hooks::Event;
use crate::hooks::pattern::{Pattern, TYPE_LITERAL_MIN};
use crate::hooks::sign::{self, Signer};
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::outbound::Target;
use crate::protocol::client;

/// Longest name of a hook, which is a label of metrics.
const NAME_BYTES_MAX: usize = 64;

/// One entry, of either kind.
struct Entry<'a> {
    key: String,
    name: &'a str,
    url: &'a str,
    events: &'a [String],
    known: &'static [Event],
    /// By key.
    patterns: Vec<(&'static str, &'a [String])>,
}

pub fn check(hooks: &Hooks, limits: &Limits) -> Vec<Problem> {
    let mut problems = secrets(hooks);
    let entries = entries(hooks);
    for (index, entry) in entries.iter().enumerate() {
        problems.extend(names(entry, &entries[..index]));
        problems.extend(url(entry));
        problems.extend(events(entry));
        problems.extend(patterns(entry));
    }
    problems.extend(rivals(hooks));
    problems.extend(call_names(hooks));
    problems.extend(replies(hooks, limits));
    problems
}

fn entries(hooks: &Hooks) -> Vec<Entry<'_>> {
    let asks = hooks.ask.iter().enumerate().map(|(index, hook)| Entry {
        key: format!("hooks.ask[{index}]"),
        name: &hook.name,
        url: &hook.url,
        events: &hook.events,
        known: Event::ASKED,
        patterns: vec![("rooms", &hook.rooms), ("calls", &hook.calls)],
    });
    let tells = hooks.tell.iter().enumerate().map(|(index, hook)| Entry {
        key: format!("hooks.tell[{index}]"),
        name: &hook.name,
        url: &hook.url,
        events: &hook.events,
        known: Event::TOLD,
        patterns: vec![("rooms", &hook.rooms)],
    });
    asks.chain(tells).collect()
}

fn secrets(hooks: &Hooks) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut each = |key: &str, secret: &SecretString| {
        if let Err(what) = Signer::key_of(secret.expose_secret()) {
            problems.push(Problem::error(key, what, sign::REMEDY));
        }
    };
    if let Some(secret) = &hooks.secret {
        each("hooks.secret", secret);
    }
    if let Some(secret) = &hooks.previous_secret {
        each("hooks.previous_secret_file", secret);
    }
    if hooks.is_on() && hooks.secret.is_none() {
        problems.push(Problem::error(
            "hooks.secret_file",
            "there are hooks and no key that signs what they are sent",
            sign::REMEDY,
        ));
    }
    problems
}

fn names(entry: &Entry<'_>, before: &[Entry<'_>]) -> Option<Problem> {
    let key = format!("{}.name", entry.key);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if entry.name.len() > NAME_BYTES_MAX || !entry.name.bytes().all(is_word) {
        let what = format!("a name has at most {NAME_BYTES_MAX} letters, digits, \"-\", \"_\" and \".\"");
        return Some(Problem::error(key, what, "choose a short word such as \"chat\""));
    }
    let other = before
        .iter()
        .find(|other| other.name == entry.name && !entry.name.is_empty())?;
    let what = format!("{} is called \"{}\" too", other.key, entry.name);
    Some(Problem::error(
        key,
        what,
        "give each hook a name of its own: metrics are told apart by it",
    ))
}

fn url(entry: &Entry<'_>) -> Option<Problem> {
    let key = format!("{}.url", entry.key);
    let remedy = "write the address of the application, such as \"https://app.example.com/conclave\"";
    if entry.url.is_empty() {
        return Some(Problem::error(key, "not set", remedy));
    }
    match Target::parse(entry.url) {
        Err(what) => Some(Problem::error(key, what, remedy)),
        Ok(target) if target.is_plain() && !target.is_here() => Some(Problem::warning(
            key,
            "plain HTTP to another machine: what is said in rooms can be read and answers can be forged on the way",
            "use https://",
        )),
        Ok(_) => None,
    }
}

fn events(entry: &Entry<'_>) -> Vec<Problem> {
    let key = format!("{}.events", entry.key);
    let known = || {
        let words: Vec<_> = entry.known.iter().map(|event| event.as_str()).collect();
        format!("write some of {}", words.join(", "))
    };
    if entry.events.is_empty() {
        return vec![Problem::error(&key, "no event: this hook would do nothing", known())];
    }
    let mut problems = Vec::new();
    for (index, word) in entry.events.iter().enumerate() {
        if !entry.known.iter().any(|event| event.as_str() == word) {
            problems.push(Problem::error(&key, format!("\"{word}\" is no event here"), known()));
        } else if entry.events[..index].contains(word) {
            problems.push(Problem::error(&key, format!("\"{word}\" comes twice"), "write it once"));
        }
    }
    problems
}

fn patterns(entry: &Entry<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, patterns) in &entry.patterns {
        for pattern in *patterns {
            if let Err(what) = Pattern::parse(pattern) {
                problems.push(Problem::error(
                    format!("{}.{name}", entry.key),
                    format!("\"{pattern}\" {what}"),
                    "write a whole name, or a beginning that ends in \"*\"",
                ));
            }
        }
    }
    problems
}

/// Two hooks that are asked the same: nobody could say which one decides.
fn rivals(hooks: &Hooks) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, hook) in hooks.ask.iter().enumerate() {
        for event in &hook.events {
            let patterns = |hook: &'_ crate::config::AskHook| match event.as_str() {
                "open" => vec!["*".to_owned()],
                "call" => hook.calls.clone(),
                _ => hook.rooms.clone(),
            };
            let own = patterns(hook);
            let other = hooks.ask[..index].iter().enumerate().find_map(|(other, rival)| {
                let shared = rival.events.contains(event).then(|| patterns(rival))?;
                let pattern = shared.into_iter().find(|pattern| own.contains(pattern))?;
                Some((other, pattern))
            });
            if let Some((other, pattern)) = other {
                let what = match event.as_str() {
                    "open" => format!("hooks.ask[{other}] is asked about open too"),
                    _ => format!("hooks.ask[{other}] is asked about {event} in \"{pattern}\" too"),
                };
                problems.push(Problem::error(
                    format!("hooks.ask[{index}].events"),
                    what,
                    "let one hook decide: take the event or the pattern out of the other",
                ));
            }
        }
    }
    problems
}

/// A reply that no outbox holds would close whoever called.
fn replies(hooks: &Hooks, limits: &Limits) -> Vec<Problem> {
    let calls = |events: &[String]| events.iter().any(|event| event == Event::Call.as_str());
    let hooks = hooks.ask.iter().enumerate().filter(|(_, hook)| calls(&hook.events));
    let too_large = hooks.filter(|(_, hook)| hook.answer_bytes + ENVELOPE_BYTES_MAX > limits.outbox_bytes);
    too_large
        .map(|(index, hook)| {
            let what = format!(
                "a reply of {} bytes does not fit into limits.outbox_bytes, {}: whoever called would be closed",
                hook.answer_bytes, limits.outbox_bytes
            );
            Problem::error(
                format!("hooks.ask[{index}].answer_bytes"),
                what,
                "lower it, or raise limits.outbox_bytes",
            )
        })
        .collect()
}

/// A pattern that begins like one of our own types looks as if it could take that over.
fn call_names(hooks: &Hooks) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, hook) in hooks.ask.iter().enumerate() {
        if !hook.events.iter().any(|event| event == Event::Call.as_str()) {
            continue;
        }
        for pattern in &hook.calls {
            let literal = pattern.trim_end_matches('*');
            let taken = client::TYPES
                .iter()
                .find(|kind| literal.len() >= TYPE_LITERAL_MIN && kind.starts_with(literal));
            if let Some(kind) = taken {
                problems.push(Problem::warning(
                    format!("hooks.ask[{index}].calls"),
                    format!("\"{pattern}\" fits the type \"{kind}\", which stays ours"),
                    "begin the application's types with a word and a dot, such as \"app.*\"",
                ));
            }
        }
    }
    problems
}
