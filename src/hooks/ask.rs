//! Questions to the application: which hook is asked about what, and what holds when it gives no good answer.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::{self, Answer, Changes};
use super::endpoint::{self, Endpoint, HookFailed};
use super::event::{self, Event, EventJson};
use super::pattern::{Pattern, Routes, TYPE_LITERAL_MIN};
use super::sign::Signer;
use crate::config::{self, Config, WhenDown};
use crate::outbound::Outbound;
use crate::runtime;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{AskingSpan, TraceContext, Traces};

/// When to try again where the application names no time.
const RETRY_MS: u64 = 1_000;

/// Which of the hooks that are asked.
pub type HookIndex = u16;

/// Everything that is asked.
pub struct Asking {
    hooks: Box<[Arc<Hook>]>,
    open: Option<HookIndex>,
    join: Routes<HookIndex>,
    chat: Routes<HookIndex>,
    call: Routes<HookIndex>,
    /// `server.name`
    node: Box<str>,
    traces: Traces,
}

struct Hook {
    endpoint: Endpoint,
    when_down: WhenDown,
    content_bytes_max: usize,
}

/// Whom a question is about.
pub struct About<'a> {
    pub user_json: &'a str,
    pub session: Option<&'a str>,
    /// The session's upgrade.
    pub upgrade: Option<&'a TraceContext>,
    /// Of the message.
    pub traceparent: Option<&'a str>,
}

/// What holds now.
#[derive(Debug)]
pub enum Outcome {
    Allowed(Box<Changes>),
    /// With the application's reason, if it gave one.
    Denied(Option<Box<str>>),
    /// Nobody can say; what is asked about is not done.
    Unavailable(HookFailed),
}

impl HookFailed {
    /// When a client may try again.
    pub fn retry_after_ms(self) -> u64 {
        match self {
            Self::CircuitOpen { for_ms } => for_ms.max(RETRY_MS),
            Self::Status {
                retry_after: Some(after),
                ..
            } => u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1),
            _ => RETRY_MS,
        }
    }
}

impl Asking {
    /// None if nothing is asked.
    pub(super) fn new(
        config: &Config,
        signer: &Arc<Signer>,
        outbound: &Outbound,
        metrics: &Metrics,
        traces: Traces,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if config.hooks.ask.is_empty() {
            return Ok(None);
        }
        let hooks = (config.hooks.ask.iter())
            .map(|hook| Hook::new(hook, config, signer, outbound, metrics).map(Arc::new))
            .collect::<anyhow::Result<_>>()?;
        let rooms = |hook: &config::AskHook| hook.rooms.clone();
        let of =
            |event: Event, patterns: &dyn Fn(&config::AskHook) -> Vec<String>| routes(&config.hooks, event, patterns);
        Ok(Some(Arc::new(Self {
            hooks,
            open: of(Event::Open, &|_| vec!["*".to_owned()])?.find(""),
            join: of(Event::Join, &rooms)?,
            chat: of(Event::Chat, &rooms)?,
            call: of(Event::Call, &|hook| hook.calls.clone())?,
            node: config.server.name.as_str().into(),
            traces,
        })))
    }

    /// Who decides about connections.
    pub fn of_open(&self) -> Option<HookIndex> {
        self.open
    }

    /// Who decides who enters `room`.
    pub fn of_join(&self, room: &str) -> Option<HookIndex> {
        self.join.find(room)
    }

    /// Who decides what is said in `room`.
    pub fn of_chat(&self, room: &str) -> Option<HookIndex> {
        self.chat.find(room)
    }

    /// Who takes calls of this name.
    pub fn of_call(&self, name: &str) -> Option<HookIndex> {
        self.call.find(name)
    }

    /// Who takes messages of this `type`, which is none of ours.
    pub fn of_type(&self, kind: &str) -> Option<HookIndex> {
        self.call.find_from(kind, TYPE_LITERAL_MIN)
    }

    /// Whether some message of a `type` that is not ours might be a call.
    pub fn takes_types(&self) -> bool {
        self.call.has_literals(TYPE_LITERAL_MIN)
    }

    /// A question; nobody is asked until its answer is waited for.
    pub fn question(
        &self,
        hook: HookIndex,
        event: Event,
        about: &About<'_>,
        tell: impl FnOnce(EventJson) -> EventJson,
    ) -> Question {
        let id = event::fresh_id();
        let json = EventJson::new(&id, event, runtime::now_ms(), &self.node)
            .raw("user", about.user_json)
            .optional("session", about.session);
        let (span, traceparent) = self.traces.asking(event.as_str(), about.upgrade, about.traceparent);
        Question {
            hook: Arc::clone(&self.hooks[usize::from(hook)]),
            event,
            id,
            body: tell(json).finish().into(),
            span,
            traceparent,
        }
    }
}

impl Hook {
    fn new(
        hook: &config::AskHook,
        config: &Config,
        signer: &Arc<Signer>,
        outbound: &Outbound,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let settings = endpoint::Settings {
            name: &hook.name,
            url: &hook.url,
            ca_file: config.hooks.ca_file.as_deref(),
            timeout: hook.timeout,
            in_flight: hook.in_flight,
            circuit: (hook.circuit_failures, hook.circuit_pause),
            answer_bytes: hook.answer_bytes,
        };
        Ok(Self {
            endpoint: Endpoint::new(&settings, Arc::clone(signer), outbound, metrics)?,
            when_down: hook.when_down,
            content_bytes_max: config.limits.message_bytes,
        })
    }
}

fn routes(
    hooks: &config::Hooks,
    event: Event,
    patterns: &dyn Fn(&config::AskHook) -> Vec<String>,
) -> anyhow::Result<Routes<HookIndex>> {
    let mut routes = Vec::new();
    let asked = |hook: &config::AskHook| hook.events.iter().any(|word| word == event.as_str());
    for (index, hook) in hooks.ask.iter().enumerate().filter(|(_, hook)| asked(hook)) {
        for text in patterns(hook) {
            let pattern = Pattern::parse(&text).map_err(|what| anyhow::anyhow!("hook {}: {text} {what}", hook.name))?;
            routes.push((pattern, HookIndex::try_from(index)?));
        }
    }
    Ok(Routes::new(routes))
}

/// One question, ready to be asked.
pub struct Question {
    hook: Arc<Hook>,
    event: Event,
    id: String,
    body: Bytes,
    span: Option<AskingSpan>,
    traceparent: Option<String>,
}

impl Question {
    /// The `traceparent` that goes along.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// Asks.
    ///
    /// # Cancel safety
    /// Dropping it gives up the answer; the application may have been asked.
    pub async fn answer(mut self) -> Outcome {
        let Hook {
            endpoint,
            when_down,
            content_bytes_max,
        } = &*self.hook;
        let read = |answer| answer::read(answer, *content_bytes_max);
        let answered = endpoint
            .post_and_read(&self.id, self.body, self.traceparent.as_deref(), read)
            .await;
        let (word, is_failure) = match &answered {
            Ok(Answer::Allowed(_)) => ("allowed", false),
            Ok(Answer::Denied(_)) => ("denied", false),
            Err(failed) => (failed.as_str(), true),
        };
        if let Some(span) = &mut self.span {
            span.result(word, is_failure);
        }
        match answered {
            Ok(Answer::Allowed(changes)) => Outcome::Allowed(changes),
            Ok(Answer::Denied(reason)) => Outcome::Denied(reason),
            // A call has nobody else who could do it.
            Err(_) if *when_down == WhenDown::Allow && self.event != Event::Call => Outcome::Allowed(Box::default()),
            Err(failed) => Outcome::Unavailable(failed),
        }
    }
}
