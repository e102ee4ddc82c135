//! The application is told what happened: at least once, in order per room.

mod away;
mod memory;
mod nats;
mod nodes;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

use super::signing;
use crate::harness::backend::{self, Asked, Backend};
use crate::harness::{self, Builder, within};

/// How the application takes what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// 204.
    Takes,
    /// This status, and nothing is taken.
    Refuses(u16),
    /// Takes it and says so when [`App::answers`] lets it.
    TakesInSilence,
}

/// An application that remembers what it was told.
struct App {
    backend: Backend,
    state: Arc<State>,
}

struct State {
    manner: Mutex<Manner>,
    events: Mutex<Vec<Value>>,
    taken: watch::Sender<usize>,
    refused: AtomicUsize,
    answers: watch::Sender<bool>,
}

impl App {
    async fn start() -> Self {
        let backend = Backend::start().await;
        let state = Arc::new(State {
            manner: Mutex::new(Manner::Takes),
            events: Mutex::default(),
            taken: watch::Sender::new(0),
            refused: AtomicUsize::new(0),
            answers: watch::Sender::new(false),
        });
        let told = Arc::clone(&state);
        backend.answers(move |asked| {
            let told = Arc::clone(&told);
            async move { told.hear(&asked).await }
        });
        Self { backend, state }
    }

    fn is_now(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// Whoever waits for an answer has it.
    fn answers(&self) {
        self.state.answers.send_replace(true);
    }

    /// All that it has taken, in the order in which it came.
    fn events(&self) -> Vec<Value> {
        self.state.events.lock().unwrap().clone()
    }

    /// Waits until what it has taken is enough.
    async fn told(&self, what: &str, is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut taken = self.state.taken.subscribe();
        let enough = taken.wait_for(|_| is_enough(&self.state.events.lock().unwrap()));
        if tokio::time::timeout(harness::PATIENCE, enough).await.is_err() {
            let events = self.events().iter().map(brief).collect::<Vec<_>>();
            panic!("waited for {what}, and was told {events:#?}");
        }
        self.events()
    }

    /// Waits until it has refused so many requests.
    async fn refused(&self, times: usize) {
        let mut taken = self.state.taken.subscribe();
        let refused = taken.wait_for(|_| self.state.refused.load(Ordering::Relaxed) >= times);
        within(&format!("{times} requests to be refused"), refused)
            .await
            .unwrap();
    }

    /// A node with a hook that is told of these events; more `lines` for its table.
    fn node(&self, events: &str, lines: &str) -> Builder {
        let url = &self.backend.url;
        let table = format!("url = \"{url}/told\"\nevents = [{events}]\nretry_max = \"300ms\"\n{lines}");
        signing(harness::node()).entry("hooks.tell", &table)
    }
}

impl State {
    async fn hear(&self, asked: &Asked) -> axum::response::Response {
        let manner = *self.manner.lock().unwrap();
        let Manner::Refuses(status) = manner else {
            let events = asked.event["events"].as_array().expect("events").clone();
            assert!(asked.header("webhook-signature").starts_with("v1,"), "{asked:?}");
            assert!(asked.header("webhook-id").starts_with("b-"), "{asked:?}");
            self.events.lock().unwrap().extend(events);
            self.taken.send_modify(|taken| *taken += 1);
            if manner == Manner::TakesInSilence {
                let mut answers = self.answers.subscribe();
                drop(answers.wait_for(|answers| *answers).await);
            }
            return backend::status(204);
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.taken.send_modify(|_| ());
        backend::status(status)
    }
}

const EVERYTHING: &str = r#""open", "close", "join", "left", "chat""#;

/// `join ann`, `chat 7`, `lost 3`.
fn brief(event: &Value) -> String {
    let name = event["event"].as_str().expect("a name");
    match name {
        "chat" => format!("chat {}", event["content"]),
        "lost" => format!("lost {}", event["count"]),
        _ => format!("{name} {}", event["user"]["id"].as_str().expect("a user")),
    }
}

/// What was told of a room, in order.
fn of_room(events: &[Value], room: &str) -> Vec<String> {
    events.iter().filter(|event| event["room"] == room).map(brief).collect()
}

/// Each event where it came first.
fn once(events: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let is_new = |event: &&Value| seen.insert(event["id"].as_str().expect("an id").to_owned());
    events.iter().filter(is_new).cloned().collect()
}

/// How many of this name there are.
fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["event"] == name).count()
}

/// What `lost` events say, all together.
fn lost(events: &[Value]) -> u64 {
    events.iter().filter_map(|event| event["count"].as_u64()).sum()
}

/// `chat 1` to `chat N`.
fn chats(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("chat {number}")).collect()
}
