//! What one connection waits for from others, mostly the application: one question that holds up the rest of it, so that
//! its messages keep their order, and calls beside that, which hold up nothing. Polled by the connection's own task, so
//! that both end with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};

use super::dispatch::{Done, Failed};
use super::task::Life;
use crate::auth::jwks::Waiter;
use crate::auth::{NotVerified, Verified};
use crate::hooks::ask::HookIndex;
use crate::hooks::event::EventJson;
use crate::hooks::{About, Asking, Changes, Event, HookFailed, Outcome, Question};
use crate::hub::Room;
use crate::outbound::CallFailed;
use crate::protocol::client::{self, BadMessage, Ref, Since};
use crate::protocol::error::ErrorCode;
use crate::protocol::server::{self, RemovedReason};
use crate::telemetry::metrics::Limit;
use crate::websocket::encoded::Frame;

/// Everything that one connection waits for from the application.
#[derive(Default)]
pub(super) struct Asks {
    question: Option<(Held, BoxFuture<'static, Outcome>)>,
    calls: FuturesUnordered<BoxFuture<'static, Called>>,
    /// A new token whose key is not known yet.
    verdict: Option<Renewing>,
}

/// With the raw JSON of its `ref`.
type Renewing = (Option<Box<str>>, BoxFuture<'static, Result<Verified, NotVerified>>);

/// A message that is done once the application has allowed it.
enum Held {
    Join {
        room: Box<str>,
        since: Option<(Box<str>, u64)>,
        reference: Option<Box<str>>,
    },
    Chat {
        room: Arc<Room>,
        content: Box<str>,
        key: Option<Box<str>>,
        reference: Option<Box<str>>,
        traceparent: Option<Box<str>>,
    },
}

impl Held {
    fn is_about(&self, name: &str) -> bool {
        match self {
            Self::Join { room, .. } => **room == *name,
            Self::Chat { room, .. } => *room.name == *name,
        }
    }
}

/// A call that is over, with the raw JSON of its `ref`.
type Called = (Option<Box<str>>, Outcome);

/// A chat as it came, its room found.
pub(super) struct Chat<'a> {
    pub room: &'a Arc<Room>,
    pub content: &'a str,
    pub key: Option<&'a str>,
    pub reference: Option<Ref<'a>>,
    pub traceparent: Option<&'a str>,
}

impl Asks {
    /// Whether nothing more is taken in before an answer is there.
    pub fn holds_up(&self) -> bool {
        self.question.is_some() || self.verdict.is_some()
    }

    fn is_idle(&self) -> bool {
        !self.holds_up() && self.calls.is_empty()
    }
}

impl Life {
    /// Whether the application is asked who enters `room`: it is then, and the rest follows from its answer.
    pub(super) fn asks_to_join(
        &mut self,
        room: &str,
        since: Option<&Since<'_>>,
        reference: Option<Ref<'_>>,
        traceparent: Option<&str>,
    ) -> bool {
        let Some((asking, hook)) = self.asked(|asking| asking.of_join(room)) else {
            return false;
        };
        let question = self.question(&asking, hook, Event::Join, traceparent, |event| {
            event.text("room", room)
        });
        let held = Held::Join {
            room: room.into(),
            since: since.map(|since| (since.epoch.as_ref().into(), since.seq)),
            reference: owned(reference),
        };
        self.hold(held, question);
        true
    }

    /// Whether the application is asked what is said: it is then, and the rest follows from its answer.
    pub(super) fn asks_to_chat(&mut self, chat: &Chat<'_>) -> bool {
        // Nobody asks: one look at the room.
        let Some(Some(hook)) = chat.room.chat_hook.get() else {
            return false;
        };
        let Some((asking, hook)) = self.asked(|_| Some(*hook)) else {
            return false;
        };
        let question = self.question(&asking, hook, Event::Chat, chat.traceparent, |event| {
            event
                .raw("room", &chat.room.name_json)
                .raw("content", chat.content)
                .optional("key", chat.key)
        });
        let held = Held::Chat {
            room: Arc::clone(chat.room),
            content: chat.content.into(),
            key: chat.key.map(Into::into),
            reference: owned(chat.reference),
            // What is published belongs to the same trace, also where it began with the question.
            traceparent: chat.traceparent.or(question.traceparent()).map(Into::into),
        };
        self.hold(held, question);
        true
    }

    /// Settles which hook is asked about what is said in a room that was just entered.
    pub(super) fn settle_chat_hook(&self, room: &Room) {
        if let Some(asking) = &self.node.hooks.asking
            && !room.is_shadow()
        {
            room.chat_hook.get_or_init(|| asking.of_chat(room.called()));
        }
    }

    /// Has the application do what is called `name`.
    pub(super) fn call(
        &mut self,
        name: &str,
        data: &str,
        reference: Option<Ref<'_>>,
        traceparent: Option<&str>,
    ) -> Result<Done, Failed> {
        let Some((asking, hook)) = self.asked(|asking| asking.of_call(name)) else {
            return Err(Failed::new(
                ErrorCode::UnknownType,
                "nobody here takes calls of this name",
            ));
        };
        self.begin_call(&asking, hook, (name, data), reference, traceparent);
        Ok(Done::Answered)
    }

    /// A message of a `type` that is not ours: a call, if the application takes it.
    pub(super) fn on_unknown_type(&mut self, text: &str, bad: BadMessage<'_>) {
        let asking = self.node.hooks.asking.as_ref();
        let takes = |asking: &&Arc<Asking>| asking.takes_types() && !self.identity.is_probe;
        let Some(asking) = asking.filter(takes).map(Arc::clone) else {
            return self.error(bad.reference, bad.code, &bad.message, None, None);
        };
        let message = match client::foreign(text) {
            Ok(message) => message,
            Err(bad) => return self.error(bad.reference, bad.code, &bad.message, None, None),
        };
        let Some(hook) = asking.of_type(&message.kind) else {
            return self.error(bad.reference, bad.code, &bad.message, None, None);
        };
        let what = (message.kind.as_ref(), message.data.as_str());
        self.begin_call(&asking, hook, what, bad.reference, message.traceparent.as_deref());
    }

    fn begin_call(
        &mut self,
        asking: &Arc<Asking>,
        hook: HookIndex,
        (name, data): (&str, &str),
        reference: Option<Ref<'_>>,
        traceparent: Option<&str>,
    ) {
        let calls = self.asks.as_ref().map_or(0, |asks| asks.calls.len());
        if calls >= self.node.config.limits.calls_per_connection {
            self.node.metrics.limit_hit(Limit::CallsPerConnection);
            // Not `refuse_for_rate`: who calls while others are under way abuses nothing.
            let failed = Failed {
                retry_after_ms: Some(CALLS_RETRY_MS),
                ..Failed::new(
                    ErrorCode::RateLimited,
                    "too many calls are under way; this one was not made",
                )
            };
            return self.refuse(reference, &failed);
        }
        let question = self.question(asking, hook, Event::Call, traceparent, |event| {
            event.text("name", name).raw("data", data)
        });
        let reference = owned(reference);
        let call = async move { (reference, question.answer().await) };
        self.asks.get_or_insert_default().calls.push(Box::pin(call));
    }

    /// The hook that `find` finds; probes ask nobody.
    fn asked(&self, find: impl FnOnce(&Asking) -> Option<HookIndex>) -> Option<(Arc<Asking>, HookIndex)> {
        let asking = self.node.hooks.asking.as_ref()?;
        if self.identity.is_probe {
            return None;
        }
        find(asking).map(|hook| (Arc::clone(asking), hook))
    }

    fn question(
        &self,
        asking: &Asking,
        hook: HookIndex,
        event: Event,
        traceparent: Option<&str>,
        tell: impl FnOnce(EventJson) -> EventJson,
    ) -> Question {
        let about = About {
            user_json: &self.identity.user_json,
            session: Some(&self.conn.session.to_string()),
            upgrade: self.trace.as_deref(),
            traceparent,
        };
        asking.question(hook, event, &about, tell)
    }

    /// Nothing more is taken in until the answer is there.
    fn hold(&mut self, held: Held, question: Question) {
        self.conn.wait_for_answer();
        self.asks.get_or_insert_default().question = Some((held, Box::pin(question.answer())));
    }

    /// Does what the application has answered to; true if there was any of it.
    pub(super) fn poll_asks(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some(asks) = &mut self.asks {
            if let Some((_, answer)) = &mut asks.question
                && let Poll::Ready(outcome) = answer.as_mut().poll(cx)
            {
                // Somebody may have taken the user out of the room meanwhile: that holds, whatever the answer.
                if self.shard.removes() {
                    self.leave_removed();
                }
                let question = self.asks.as_mut().and_then(|asks| asks.question.take());
                if let Some((held, _)) = question {
                    self.conn.settle(false);
                    self.on_answer(held, outcome);
                }
            } else if let Some((_, verdict)) = &mut asks.verdict
                && let Poll::Ready(verdict) = verdict.as_mut().poll(cx)
            {
                let reference = asks.verdict.take().and_then(|(reference, _)| reference);
                self.conn.settle(false);
                self.on_verdict(verdict, reference.as_deref());
            } else if let Poll::Ready(Some((reference, outcome))) = Pin::new(&mut asks.calls).poll_next(cx) {
                self.on_called(reference.as_deref(), outcome);
            } else {
                if asks.is_idle() {
                    self.asks = None;
                }
                return any;
            }
            any = true;
        }
        any
    }

    /// Gives up what waits for the application's answer and is about this room, which the user was taken out of: the removal
    /// came later than the message, and holds.
    pub(super) fn withdraw(&mut self, name: &str) {
        let Some(asks) = &mut self.asks else { return };
        let Some((held, _)) = asks.question.take_if(|(held, _)| held.is_about(name)) else {
            return;
        };
        self.conn.settle(false);
        let reason = RemovedReason::Kicked.as_str();
        let (reference, failed) = match &held {
            Held::Join { reference, .. } => {
                let why = "the application has taken you out of this room";
                let failed = Failed {
                    reason: Some(reason),
                    ..Failed::new(ErrorCode::Forbidden, why)
                };
                (reference, failed)
            }
            Held::Chat { reference, .. } => {
                let why = "the application has taken you out of this room; this was not said";
                (reference, Failed::new(ErrorCode::NotJoined, why))
            }
        };
        self.refuse(reference.as_deref().and_then(Ref::from_json), &failed);
    }

    /// Nothing more is taken in until it is known whether the new token is good.
    pub(super) fn await_verdict(&mut self, token: &str, reference: Option<Ref<'_>>) {
        let (policy, token) = (Arc::clone(&self.node.policy), token.to_owned());
        let waiter = Waiter::User(Arc::clone(&self.identity.user_id));
        let verdict = async move { policy.verify_patiently(&token, waiter).await };
        self.conn.wait_for_answer();
        self.asks.get_or_insert_default().verdict = Some((owned(reference), Box::pin(verdict)));
    }

    fn on_verdict(&mut self, verdict: Result<Verified, NotVerified>, reference: Option<&str>) {
        let reference = reference.and_then(Ref::from_json);
        let done = match verdict {
            Ok(verified) => self.take_token(verified, reference),
            Err(NotVerified::Denied(denied)) => Err(self.bad_token(denied)),
            Err(NotVerified::Unavailable) => Err(Failed {
                retry_after_ms: Some(KEYS_RETRY_MS),
                ..Failed::new(
                    ErrorCode::Unavailable,
                    "the keys of the new token's issuer cannot be had for now; try again",
                )
            }),
        };
        let now_ns = self.shard.now_ns();
        self.finish(done, reference, now_ns);
    }

    fn on_answer(&mut self, held: Held, outcome: Outcome) {
        let (Held::Join { reference, .. } | Held::Chat { reference, .. }) = &held;
        let reference = reference.clone();
        let reference = reference.as_deref().and_then(Ref::from_json);
        let done = match outcome {
            Outcome::Allowed(changes) => self.go_on(held, reference, *changes),
            Outcome::Denied(reason) => return self.deny(reference, reason.as_deref()),
            Outcome::Unavailable(failed) => Err(unavailable(failed)),
        };
        let now_ns = self.shard.now_ns();
        self.finish(done, reference, now_ns);
    }

    fn go_on(&mut self, held: Held, reference: Option<Ref<'_>>, changes: Changes) -> Result<Done, Failed> {
        match held {
            Held::Join { room, since, .. } => {
                let since = since.as_ref().map(|(epoch, seq)| Since {
                    epoch: epoch.as_ref().into(),
                    seq: *seq,
                });
                self.enter(&room, since.as_ref(), reference)
            }
            Held::Chat {
                room,
                content,
                key,
                traceparent,
                ..
            } => {
                // Somebody may have taken the user out of the room meanwhile.
                let room = self.joined(room.called())?;
                let content = changes.content.as_ref().map_or(&*content, |content| content.get());
                self.say(&Chat {
                    room: &room,
                    content,
                    key: key.as_deref(),
                    reference,
                    traceparent: traceparent.as_deref(),
                })
            }
        }
    }

    fn on_called(&self, reference: Option<&str>, outcome: Outcome) {
        let reference = reference.and_then(Ref::from_json);
        match outcome {
            Outcome::Allowed(changes) => {
                if let Some(reference) = reference {
                    let data = changes.data.as_ref().map_or("null", |data| data.get());
                    let reply = server::Reply { reference, data };
                    self.reply(Frame::text(|out| reply.write(out)));
                }
            }
            Outcome::Denied(reason) => self.deny(reference, reason.as_deref()),
            Outcome::Unavailable(HookFailed::Call(CallFailed::TooLarge)) => self.refuse(
                reference,
                &Failed::new(ErrorCode::TooLarge, "the application's answer is larger than it may be"),
            ),
            Outcome::Unavailable(failed) => self.refuse(reference, &unavailable(failed)),
        }
    }

    fn deny(&self, reference: Option<Ref<'_>>, reason: Option<&str>) {
        let why = "the application does not allow it";
        self.error(reference, ErrorCode::Forbidden, why, reason, None);
    }
}

/// When to try again with a token whose issuer does not answer.
const KEYS_RETRY_MS: u64 = 5_000;

/// When to try again with a call that was one too many.
const CALLS_RETRY_MS: u64 = 500;

fn unavailable(failed: HookFailed) -> Failed {
    Failed {
        retry_after_ms: Some(failed.retry_after_ms()),
        ..Failed::new(
            ErrorCode::Unavailable,
            "the application does not answer for now; try again",
        )
    }
}

fn owned(reference: Option<Ref<'_>>) -> Option<Box<str>> {
    reference.map(|reference| reference.as_json().into())
}
