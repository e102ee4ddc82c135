//! Classes of rooms: patterns that rooms can have, each once, and numbers that fit those of the rest.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::schema::ROOMS;
use crate::config::{BackplaneKind, Config, RoomClass, Who};
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::protocol::room;

/// Checks every `[[rooms]]` entry, by itself and beside the others.
pub fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: HashMap<&str, &RoomClass> = HashMap::new();
    for (index, class) in config.rooms.iter().enumerate() {
        let key = |name: &str| format!("{ROOMS}[{index}].{name}");
        if let Err((what, remedy)) = pattern(&class.pattern) {
            problems.push(Problem::error(key("pattern"), what, remedy));
        } else if let Some(first) = seen.insert(&class.pattern, class) {
            problems.push(Problem::error(
                key("pattern"),
                format!("\"{}\" has a class already, {}", class.pattern, first.set_in),
                "keep one of the two entries",
            ));
        }
        problems.extend(verbs(class, key));
        problems.extend(history(config, class, key));
        problems.extend(windows(config, class, key));
        problems.extend(rates(config, class, key));
        problems.extend(shared_window(config, class, key));
    }
    problems
}

/// What is wrong with a pattern, and what to do.
fn pattern(pattern: &str) -> Result<(), (String, String)> {
    if pattern.is_empty() {
        let remedy = "write the name of a room, or the beginning of many and a \"*\", such as \"team/*\"";
        return Err(("not set".to_owned(), remedy.to_owned()));
    }
    let (literal, is_prefix) = match pattern.strip_suffix('*') {
        Some(literal) => (literal, true),
        None => (pattern, false),
    };
    if literal.contains('*') {
        let what = format!("\"{pattern}\" has a \"*\" before its end");
        return Err((
            what,
            "one \"*\" at the end stands for every name that begins so".to_owned(),
        ));
    }
    // A beginning may be what a name may not be, such as end with a space, if only something can follow.
    let verdict = room::check(literal).or_else(|why| {
        if is_prefix {
            room::check(&format!("{literal}a"))
        } else {
            Err(why)
        }
    });
    verdict.map_err(|why| {
        (
            format!("no room can match \"{}\"", pattern.escape_debug()),
            why.to_owned(),
        )
    })
}

/// Words that would never be asked.
fn verbs(class: &RoomClass, key: impl Fn(&str) -> String) -> Option<Problem> {
    let others = [class.chat, class.list, class.history];
    (class.join == Who::None && others.contains(&Who::Granted)).then(|| {
        Problem::warning(
            key("join"),
            "nobody can enter these rooms: what else is granted in them means nothing",
            "use \"granted\", or leave the other words out",
        )
    })
}

fn history(config: &Config, class: &RoomClass, key: impl Fn(&str) -> String) -> Option<Problem> {
    let messages = class.history_messages.unwrap_or(config.history.messages);
    let bytes = class.history_bytes.unwrap_or(config.history.bytes);
    let frame_bytes_max = config.limits.message_bytes + ENVELOPE_BYTES_MAX;
    let name = match class.history_bytes {
        Some(_) => "history_bytes",
        // Of a node that keeps anything elsewhere, too, `history.bytes` is told.
        None if config.history.messages == 0 => "history_messages",
        None => return None,
    };
    if messages == 0 || bytes >= frame_bytes_max {
        return None;
    }
    let what = format!(
        "{bytes} bytes cannot keep one chat of limits.message_bytes, {} bytes, and its envelope, though an \"ok\" promises that it is kept",
        config.limits.message_bytes
    );
    let remedy = format!("at least {frame_bytes_max} for history_bytes, or history_messages = 0 for no history");
    Some(Problem::error(key(name), what, remedy))
}

fn windows(config: &Config, class: &RoomClass, key: impl Fn(&str) -> String) -> Option<Problem> {
    let backplane = &config.backplane;
    let window = class.key_window?;
    (backplane.kind != BackplaneKind::Memory && backplane.publish_timeout >= window).then(|| {
        let what = format!(
            "not more than backplane.publish_timeout, {:?}: a retry could be kept twice",
            backplane.publish_timeout
        );
        Problem::error(key("key_window"), what, "raise it, or lower backplane.publish_timeout")
    })
}

/// The streams of NATS know every id for the same time.
fn shared_window(config: &Config, class: &RoomClass, key: impl Fn(&str) -> String) -> Option<Problem> {
    let own = class.key_window?;
    let windows = config.rooms.iter().filter_map(|class| class.key_window);
    let longest = windows.fold(config.room.key_window, Duration::max);
    (config.backplane.kind == BackplaneKind::Nats && own < longest).then(|| {
        let what = format!("NATS remembers keys of all rooms alike, for the longest window of all, {longest:?}");
        Problem::warning(key("key_window"), what, "leave it out, or use Redis")
    })
}

fn rates(config: &Config, class: &RoomClass, key: impl Fn(&str) -> String) -> Option<Problem> {
    let per_second = class.bytes_per_second?;
    (per_second > 0 && per_second < config.limits.message_bytes as u64).then(|| {
        let what = format!(
            "{per_second} bytes per second are less than one message of limits.message_bytes, {}: such a message could never pass",
            config.limits.message_bytes
        );
        Problem::error(key("bytes_per_second"), what, "raise it, or lower limits.message_bytes")
    })
}
