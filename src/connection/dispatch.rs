//! What a client asks for, done: limits and permissions here, the rest in the hub.

use crate::auth::{self, Denied, Verb, Verified};
use crate::config::classes::Class;
use crate::connection::NEVER;
use crate::connection::asking::Chat;
use crate::connection::task::Life;
use crate::hub::room::{Joining, Paged, Paging, Said, Saying, Sees};
use crate::hub::{Joined, Position, Room};
use crate::limits::ROOM_BYTES_MAX;
use crate::protocol::client::{self, ClientMessage, Page, Ref, Request, Since};
use crate::protocol::close::{Close, DeniedWord};
use crate::protocol::error::ErrorCode;
use crate::protocol::server::RemovedReason;
use crate::protocol::{room, server};
use crate::runtime::{self, Exceeded};
use crate::telemetry::metrics::{Limit, RateLimit, Recovery};
use crate::telemetry::taps;
use crate::telemetry::traces::PublishSpan;
use crate::websocket::encoded::Frame;

use std::borrow::Cow;
use std::sync::Arc;

/// When to try again where no limit names a time.
const UNAVAILABLE_RETRY_MS: u64 = 500;

/// Why a request was not done. `why` is for a person.
pub(super) struct Failed {
    pub code: ErrorCode,
    pub why: &'static str,
    pub reason: Option<&'static str>,
    pub retry_after_ms: Option<u64>,
}

impl Failed {
    pub const fn new(code: ErrorCode, why: &'static str) -> Self {
        Self {
            code,
            why,
            reason: None,
            retry_after_ms: None,
        }
    }
}

/// What a request is answered with, besides named replies.
pub(super) enum Done {
    /// The named reply is on its way, or none is due.
    Answered,
    Ok,
}

impl Life {
    pub(super) fn on_text(&mut self, text: &str, now_ns: u64) {
        #[cfg(test)]
        assert!(text != crate::runtime::tests::A_BUG, "a bug that a test asked for");
        // What is too large is never let through, however long its sender waits: it costs no more than the largest that is.
        let charged = text.len().min(self.node.config.limits.message_bytes);
        if let Err(failed) = self.check_rates(charged, now_ns) {
            return self.refuse_for_rate(reference_of(text), &failed, now_ns);
        }
        if text.len() > self.node.config.limits.message_bytes {
            self.node.metrics.limit_hit(Limit::MessageBytes);
            let failed = Failed::new(
                ErrorCode::TooLarge,
                "the message is larger than `limits.message_bytes` of `connected`",
            );
            return self.refuse(reference_of(text), &failed);
        }
        match client::parse(text) {
            Ok(request) => self.on_request(request, text.len(), now_ns),
            Err(bad) if bad.code == ErrorCode::UnknownType => self.on_unknown_type(text, bad),
            Err(bad) => self.error(bad.reference, bad.code, &bad.message, None, None),
        }
    }

    fn on_request(&mut self, request: Request<'_>, bytes: usize, now_ns: u64) {
        let reference = request.reference;
        if self.node.hub.taps().is_on() {
            self.tap(&request.message, bytes);
        }
        let done = match request.message {
            ClientMessage::Chat { room, content, key } => self.chat(
                &room,
                content.get(),
                key.as_deref(),
                reference,
                request.traceparent.as_deref(),
            ),
            ClientMessage::Join { room, since } => {
                self.join(&room, since.as_ref(), reference, request.traceparent.as_deref())
            }
            ClientMessage::Leave { room } => self.leave(&room),
            ClientMessage::List { room } => self.list(&room, reference),
            ClientMessage::History { room, page, limit } => self.history(&room, page, limit, reference),
            ClientMessage::Call { name, data } => self.call(&name, data, reference, request.traceparent.as_deref()),
            ClientMessage::Auth { token } => self.reauthenticate(&token, reference),
            ClientMessage::Ping => {
                let pong = server::Pong {
                    reference,
                    time_ms: runtime::now_ms(),
                };
                self.reply(Frame::text(|out| pong.write(out)));
                Ok(Done::Answered)
            }
        };
        self.finish(done, reference, now_ns);
    }

    /// Says what came of a request.
    pub(super) fn finish(&mut self, done: Result<Done, Failed>, reference: Option<Ref<'_>>, now_ns: u64) {
        match (done, reference) {
            (Ok(Done::Ok), Some(reference)) => self.ok(server::Done {
                reference,
                expires: None,
                kept: None,
            }),
            (Ok(_), _) => {}
            (Err(failed), reference) if failed.code == ErrorCode::RateLimited => {
                self.refuse_for_rate(reference, &failed, now_ns);
            }
            (Err(failed), reference) => self.refuse(reference, &failed),
        }
    }

    /// Says so, and ends who goes on all the same.
    fn refuse_for_rate(&mut self, reference: Option<Ref<'_>>, failed: &Failed, now_ns: u64) {
        self.refuse(reference, failed);
        let patience = self.rates.as_mut().map(|rates| &mut rates.patience);
        if patience.is_some_and(|patience| patience.on_refusal(now_ns)) {
            self.close(Close::ABUSE);
        }
    }

    /// Shows a request to whoever looks on; never a token.
    #[cold]
    fn tap(&self, message: &ClientMessage<'_>, bytes: usize) {
        let (kind, room, content) = match message {
            ClientMessage::Chat { room, content, .. } => ("chat", Some(room), Some(content.get())),
            ClientMessage::Join { room, .. } => ("join", Some(room), None),
            ClientMessage::Leave { room } => ("leave", Some(room), None),
            ClientMessage::List { room } => ("list", Some(room), None),
            ClientMessage::History { room, .. } => ("history", Some(room), None),
            ClientMessage::Call { data, .. } => ("call", None, Some(*data)),
            ClientMessage::Auth { .. } => ("auth", None, None),
            ClientMessage::Ping => ("ping", None, None),
        };
        let said = || taps::Said {
            kind,
            room: room.map(|room| room.chars().take(ROOM_BYTES_MAX).collect::<String>().into()),
            bytes,
            content: content.map(taps::Said::beginning),
        };
        self.node
            .hub
            .taps()
            .from_user(&self.identity.user_id, self.conn.session, said);
    }

    fn chat(
        &mut self,
        name: &str,
        content: &str,
        key: Option<&str>,
        reference: Option<Ref<'_>>,
        traceparent: Option<&str>,
    ) -> Result<Done, Failed> {
        let room = self.joined(name)?;
        self.check_grant(name, Verb::Chat, room.class())?;
        self.check_room_rate(&room, content.len())?;
        let chat = Chat {
            room: &room,
            content,
            key,
            reference,
            traceparent,
        };
        if self.asks_to_chat(&chat) {
            return Ok(Done::Answered);
        }
        self.say(&chat)
    }

    /// Says it in the room: everybody may know by now.
    pub(super) fn say(&mut self, chat: &Chat<'_>) -> Result<Done, Failed> {
        let Chat {
            room,
            content,
            key,
            reference,
            traceparent,
        } = *chat;
        let mut span = self.node.traces.publish(self.trace.as_deref(), traceparent);
        let trace = span
            .as_ref()
            .and_then(PublishSpan::context)
            .map(|context| context.to_string());
        let shared = self.node.hub.is_shared();
        if shared {
            // Before it is said: the answer may be quicker than we are.
            self.conn.begin_saying();
        }
        let said = room.say(&Saying {
            member: self.member(),
            user: &self.user(),
            content,
            key,
            reference,
            trace: trace.as_deref(),
            now_ms: runtime::now_ms(),
        });
        if shared && said != Said::Later {
            self.conn.end_saying();
        }
        let (epoch, seq) = match said {
            Said::New { epoch, seq, members } => {
                self.counters().publishes.inc();
                if let Some(span) = &mut span {
                    span.kept(seq, content.len());
                    // Memory backplane: the fan-out begins with the publish, on this node alone.
                    let fan_out = self
                        .node
                        .traces
                        .fan_out(span.context().as_ref(), self.shard.index, members);
                    if let Some(mut fan_out) = fan_out {
                        fan_out.delivered(members);
                    }
                }
                (epoch, seq)
            }
            Said::Later => return Ok(Done::Answered),
            Said::Again { epoch, seq } => {
                self.counters().duplicate_publishes.inc();
                (epoch, seq)
            }
            Said::Unavailable => {
                if let Some(span) = &mut span {
                    span.refused(ErrorCode::Unavailable.as_str());
                }
                return Err(Failed {
                    retry_after_ms: Some(UNAVAILABLE_RETRY_MS),
                    ..Failed::new(
                        ErrorCode::Unavailable,
                        "not accepted for now; try again with the same key",
                    )
                });
            }
        };
        if let Some(reference) = reference {
            let kept = server::Kept {
                room_json: &room.name_json,
                epoch: &epoch,
                seq,
            };
            self.ok(server::Done {
                reference,
                expires: None,
                kept: Some(kept),
            });
        }
        Ok(Done::Answered)
    }

    fn join(
        &mut self,
        name: &str,
        since: Option<&Since<'_>>,
        reference: Option<Ref<'_>>,
        traceparent: Option<&str>,
    ) -> Result<Done, Failed> {
        check_name(name)?;
        self.check_grant(name, Verb::Join, self.node.hub.class_of(name))?;
        let again = self.rooms.iter().any(|room| room.called() == name);
        let rooms_max = self.node.config.limits.rooms_per_connection;
        if !again && rooms_max > 0 && self.rooms.len() >= rooms_max {
            self.node.metrics.limit_hit(Limit::RoomsPerConnection);
            return Err(Failed::new(
                ErrorCode::TooManyRooms,
                "this connection is in as many rooms as it may be",
            ));
        }
        // Who is in already only asks for the list again.
        if !again && self.asks_to_join(name, since, reference, traceparent) {
            return Ok(Done::Answered);
        }
        self.enter(name, since, reference)
    }

    /// Goes in: nobody has to be asked any more.
    pub(super) fn enter(
        &mut self,
        name: &str,
        since: Option<&Since<'_>>,
        reference: Option<Ref<'_>>,
    ) -> Result<Done, Failed> {
        let again = self.rooms.iter().any(|room| room.called() == name);
        let user = self.user();
        let class = self.node.hub.class_of(name);
        let sees = Sees {
            users: self.identity.sees(name, Verb::List, class),
            past: self.identity.sees(name, Verb::History, class),
        };
        let joining = Joining {
            member: self.member(),
            user: &user,
            since: since.map(|since| Position {
                epoch: &since.epoch,
                seq: since.seq,
            }),
            reference,
            again,
            sees,
            now_ms: runtime::now_ms(),
        };
        // A probe goes beside the room, where nobody notices it.
        let name = if self.identity.is_probe {
            Cow::Owned(room::shadow_of(name))
        } else {
            Cow::Borrowed(name)
        };
        let (room, joined) = self.node.hub.join(&name, &joining).map_err(|_| {
            self.node.metrics.limit_hit(Limit::Rooms);
            Failed::new(ErrorCode::Unavailable, "this node holds as many rooms as it may")
        })?;
        match joined {
            Joined::Unavailable => {
                return Err(Failed {
                    retry_after_ms: Some(UNAVAILABLE_RETRY_MS),
                    ..Failed::new(ErrorCode::Unavailable, "the backplane is away; try again")
                });
            }
            Joined::Later => {
                self.entering = !again;
                self.owed_of = room.id;
                self.conn.wait_for_answer();
            }
            Joined::Full | Joined::Gone => {
                self.node.metrics.limit_hit(Limit::RoomMembers);
                return Err(Failed::new(
                    ErrorCode::RoomFull,
                    "the room has as many members as it may",
                ));
            }
            Joined::In { recovered, .. } => {
                if let Some(recovered) = recovered.filter(|_| !room.is_shadow()) {
                    let result = if recovered {
                        Recovery::Recovered
                    } else {
                        Recovery::NotRecovered
                    };
                    self.node.metrics.history_recovery(result);
                    self.counters().replays.add(u64::from(recovered));
                }
            }
        }
        self.settle_chat_hook(&room);
        if !again {
            self.counters().joins.inc();
            // Most connections are in one room: room for one, not for four.
            self.rooms.reserve_exact(usize::from(self.rooms.is_empty()));
            self.rooms.push(room);
        }
        Ok(Done::Answered)
    }

    fn leave(&mut self, name: &str) -> Result<Done, Failed> {
        let room = self.joined(name)?;
        self.go_out(&room);
        Ok(Done::Ok)
    }

    fn list(&mut self, name: &str, reference: Option<Ref<'_>>) -> Result<Done, Failed> {
        let room = self.joined(name)?;
        self.check_grant(name, Verb::List, room.class())?;
        room.list(self.member(), &self.user(), reference, runtime::now_ms());
        Ok(Done::Answered)
    }

    fn history(&mut self, name: &str, page: Page, limit: usize, reference: Option<Ref<'_>>) -> Result<Done, Failed> {
        let room = self.joined(name)?;
        self.check_grant(name, Verb::History, room.class())?;
        let paging = Paging {
            member: self.member(),
            page,
            limit,
            reference,
            now_ms: runtime::now_ms(),
        };
        match room.history(&paging) {
            Paged::Now(frame) => self.reply(frame),
            Paged::Later => {
                self.owed_of = room.id;
                self.conn.wait_for_answer();
            }
            Paged::Unavailable => {
                return Err(Failed {
                    retry_after_ms: Some(UNAVAILABLE_RETRY_MS),
                    ..Failed::new(ErrorCode::Unavailable, "the backplane is away; try again")
                });
            }
        }
        Ok(Done::Answered)
    }

    /// Takes a new token for the same user. A bad one changes nothing.
    fn reauthenticate(&mut self, token: &str, reference: Option<Ref<'_>>) -> Result<Done, Failed> {
        match self.node.policy.verify(token, auth::now()) {
            Ok(verified) => self.take_token(verified, reference),
            Err(denied) if self.node.policy.would_wait(token, denied) => {
                self.await_verdict(token, reference);
                Ok(Done::Answered)
            }
            Err(denied) => Err(self.bad_token(denied)),
        }
    }

    pub(super) fn bad_token(&self, denied: Denied) -> Failed {
        let word = denied.word().as_str();
        self.node.metrics.auth_failure(word);
        Failed {
            reason: Some(word),
            ..Failed::new(ErrorCode::Forbidden, "the new token is not good; the old one stays")
        }
    }

    /// Goes on with a good token, if it is the same user's.
    pub(super) fn take_token(&mut self, verified: Verified, reference: Option<Ref<'_>>) -> Result<Done, Failed> {
        // What the application said of the connection still holds.
        let verified = verified.amended(self.identity.amendment.clone());
        let identity = Arc::clone(verified.identity());
        if identity.user_id != self.identity.user_id {
            // The contract wants a word of its section 1 here; of those, this one says best that the claim does not fit.
            return Err(Failed {
                reason: Some(DeniedWord::TokenMalformed.as_str()),
                ..Failed::new(
                    ErrorCode::Forbidden,
                    "the new token is another user's; the old one stays",
                )
            });
        }
        if identity.is_probe != self.identity.is_probe {
            // It would take a probe into the rooms of users, or a user into those of probes.
            return Err(Failed {
                reason: Some(DeniedWord::TokenMalformed.as_str()),
                ..Failed::new(
                    ErrorCode::Forbidden,
                    "a probe's token does not take another's place; the old one stays",
                )
            });
        }
        self.conn.set_identity(Arc::clone(&identity));
        self.identity = identity;
        if self.node.policy.is_revoked(&self.identity, auth::now()) {
            // It was revoked after the verdict, and who ends connections may still have found the old token here.
            self.close(Close::TOKEN_REVOKED);
            return Ok(Done::Answered);
        }
        let ends_at = verified.ends_at().unwrap_or(NEVER);
        if ends_at != self.conn.expires_at() {
            self.conn.set_expires_at(ends_at);
            self.shard.watch_expiry(&self.conn);
        }
        self.leave_ungranted();
        if let Some(reference) = reference {
            self.ok(server::Done {
                reference,
                expires: verified.expires_at(),
                kept: None,
            });
        }
        Ok(Done::Answered)
    }

    /// Rooms that the new token no longer grants are left, and that is said.
    fn leave_ungranted(&mut self) {
        let ungranted: Vec<_> = self
            .rooms
            .iter()
            .filter(|room| !self.identity.may(room.called(), Verb::Join, room.class()))
            .cloned()
            .collect();
        for room in ungranted {
            self.be_removed(&room.name, RemovedReason::Grant);
        }
    }

    /// Leaves the room of this name, if it is in it, and says why.
    pub(super) fn be_removed(&mut self, name: &str, reason: RemovedReason) {
        let Some(room) = self.rooms.iter().find(|room| *room.name == *name).cloned() else {
            return;
        };
        self.go_out(&room);
        let removed = server::Removed {
            room_json: &room.name_json,
            reason,
        };
        self.reply(Frame::text(|out| removed.write(out)));
    }

    fn go_out(&mut self, room: &Arc<Room>) {
        self.rooms.retain(|joined| joined.id != room.id);
        self.leave_room(room, false, runtime::now_ms());
    }

    pub(super) fn joined(&self, name: &str) -> Result<Arc<Room>, Failed> {
        match self.rooms.iter().find(|room| room.called() == name) {
            Some(room) => Ok(Arc::clone(room)),
            None => {
                check_name(name)?;
                Err(Failed::new(ErrorCode::NotJoined, "join the room first"))
            }
        }
    }

    fn check_grant(&self, name: &str, verb: Verb, class: &Class) -> Result<(), Failed> {
        if self.identity.may(name, verb, class) {
            return Ok(());
        }
        Err(Failed::new(
            ErrorCode::Forbidden,
            "this is not allowed to you in this room",
        ))
    }

    /// Token buckets of the connection, the user, the address and the node, in this order.
    fn check_rates(&mut self, bytes: usize, now_ns: u64) -> Result<(), Failed> {
        let Some(rates) = &mut self.rates else { return Ok(()) };
        let ceilings = &self.node.ceilings;
        let taken = (rates.messages.take(1, now_ns))
            .map_err(|wait_ns| (RateLimit::Messages, wait_ns))
            .and_then(|()| ceilings.user.check(&self.identity.user_id, bytes, now_ns))
            .and_then(|()| ceilings.address.check(&rates.address, bytes, now_ns))
            .and_then(|()| ceilings.node.check(&(), bytes, now_ns));
        taken.map_err(|exceeded| self.over_rate(exceeded))
    }

    /// Those of a room, for what is said in it on this node.
    fn check_room_rate(&self, room: &Room, bytes: usize) -> Result<(), Failed> {
        if self.rates.is_none() {
            return Ok(());
        }
        let taken = (self.node.ceilings).check_room(room.class(), &room.name, bytes, self.shard.now_ns());
        taken.map_err(|exceeded| self.over_rate(exceeded))
    }

    fn over_rate(&self, (limit, wait_ns): Exceeded) -> Failed {
        self.node.metrics.rate_limited(limit);
        Failed {
            retry_after_ms: Some(wait_ns.div_ceil(1_000_000).max(1)),
            ..Failed::new(ErrorCode::RateLimited, "too many messages; this one was not processed")
        }
    }

    fn ok(&self, done: server::Done<'_>) {
        self.reply(Frame::text(|out| done.write(out)));
    }

    pub(super) fn refuse(&self, reference: Option<Ref<'_>>, failed: &Failed) {
        self.error(reference, failed.code, failed.why, failed.reason, failed.retry_after_ms);
    }

    pub(super) fn error(
        &self,
        reference: Option<Ref<'_>>,
        code: ErrorCode,
        message: &str,
        reason: Option<&str>,
        retry_after_ms: Option<u64>,
    ) {
        if !self.identity.is_probe {
            self.node.metrics.error_sent(code.as_str());
        }
        let error = server::Error {
            reference,
            code,
            message,
            reason,
            retry_after_ms,
        };
        self.reply(Frame::text(|out| error.write(out)));
    }
}

fn check_name(name: &str) -> Result<(), Failed> {
    room::check(name).map_err(|why| Failed::new(ErrorCode::BadRoom, why))
}

/// The `ref` of a message that is refused unread: who asked with one is answered with it.
fn reference_of(text: &str) -> Option<Ref<'_>> {
    match client::parse(text) {
        Ok(request) => request.reference,
        Err(bad) => bad.reference,
    }
}
