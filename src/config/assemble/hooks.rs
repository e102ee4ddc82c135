//! `[hooks]`, `[[hooks.ask]]`, `[[hooks.tell]]`.

use super::{entries_of, one_of};
use crate::config::problem::Problem;
use crate::config::read::Read;
use crate::config::settings::Settings;
use crate::config::{AskHook, Hooks, TellHook, WhenDown};

const ASK: &str = "hooks.ask";
const TELL: &str = "hooks.tell";
const PREVIOUS_SECRET_FILE: &str = "hooks.previous_secret_file";

pub fn assemble(settings: &mut Settings, problems: &mut Vec<Problem>) -> Hooks {
    let secret = one_of(settings, ["hooks.secret", "hooks.secret_file"], problems);
    let asks = entries_of(settings, ASK, problems);
    let tells = entries_of(settings, TELL, problems);
    let read = Read(settings);
    let previous = read.optional(PREVIOUS_SECRET_FILE).is_some();
    Hooks {
        secret: secret.and_then(|key| read.secret(&key, problems)),
        previous_secret: previous.then(|| read.secret(PREVIOUS_SECRET_FILE, problems)).flatten(),
        ca_file: read.optional("hooks.ca_file").map(Into::into),
        ask: asks.into_iter().map(|index| ask(&read, index)).collect(),
        tell: tells.into_iter().map(|index| tell(&read, index)).collect(),
    }
}

fn ask(read: &Read, index: usize) -> AskHook {
    let key = |name: &str| format!("{ASK}[{index}].{name}");
    let events = read.list(&key("events"));
    AskHook {
        name: named(read.text(&key("name")), &events),
        url: read.text(&key("url")),
        events,
        rooms: read.list(&key("rooms")),
        calls: read.list(&key("calls")),
        timeout: read.duration(&key("timeout")),
        when_down: match read.text(&key("when_down")).as_str() {
            "allow" => WhenDown::Allow,
            _ => WhenDown::Deny,
        },
        in_flight: read.number(&key("in_flight")),
        circuit_failures: read.number(&key("circuit_failures")),
        circuit_pause: read.duration(&key("circuit_pause")),
        answer_bytes: read.size(&key("answer_bytes")),
    }
}

fn tell(read: &Read, index: usize) -> TellHook {
    let key = |name: &str| format!("{TELL}[{index}].{name}");
    let events = read.list(&key("events"));
    TellHook {
        name: named(read.text(&key("name")), &events),
        url: read.text(&key("url")),
        events,
        rooms: read.list(&key("rooms")),
        batch_events: read.number(&key("batch_events")),
        batch_wait: read.duration(&key("batch_wait")),
        timeout: read.duration(&key("timeout")),
        retry_max: read.duration(&key("retry_max")),
        queue_events: read.number(&key("queue_events")),
        queue_bytes: read.size(&key("queue_bytes")),
    }
}

fn named(name: String, events: &[String]) -> String {
    if name.is_empty() { events.join("-") } else { name }
}
