//! What is said through the API, checked as a client's chat is.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::extract::object;
use super::problem::Problem;
use crate::auth;
use crate::backplane::contract::{Failed, Outcome, Refusal};
use crate::hub::User;
use crate::hub::room::Spoken;
use crate::limits::USER_ID_BYTES_MAX;
use crate::protocol::client::{self, KEY_BYTES_MAX};
use crate::protocol::room;
use crate::runtime::Node;
use crate::telemetry::metrics::{Limit, ShardCounters};

/// When to come again after `unavailable`.
pub const RETRY: Duration = Duration::from_secs(1);

/// Whom the application speaks for: the id of a user, or all that others are to see of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`from` is the id of a user, or an object with `id`, and perhaps `name` and `info`"
)]
#[schema(title = "Speaker")]
pub enum Speaker {
    /// The id alone.
    Id(UserId),
    /// As in a token.
    User(#[serde(deserialize_with = "object")] SpeakerUser),
}

/// 1 to 256 bytes, no control characters
#[derive(Debug, Deserialize, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 256,
    pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$",
    example = "u7"
)]
pub struct UserId(pub String);

/// `{"id":"u7","name":"Ann","info":{…}}`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeakerUser {
    /// 1 to 256 bytes, no control characters.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$",
        example = "u7"
    )]
    pub id: String,
    /// At most 256 bytes, no control characters.
    #[schema(max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$", example = "Ann")]
    pub name: Option<String>,
    /// A small public object, at most 1 KiB.
    #[schema(value_type = Option<Object>)]
    pub info: Option<Map<String, Value>>,
}

impl Speaker {
    /// As room mates see it.
    ///
    /// # Errors
    /// It is not what a token could say either.
    pub fn user(&self) -> Result<User, Problem> {
        let user = match self {
            Self::Id(UserId(id)) => auth::public_user(id, None, None),
            Self::User(user) => auth::public_user(&user.id, user.name.as_deref(), user.info.as_ref()),
        };
        user.map_err(|why| Problem::bad_request(format!("`from`: {why}"), "write it as in a token"))
    }
}

/// Whom the application speaks for if it does not say.
///
/// # Errors
/// As [`Speaker::user`]; the configuration was checked, so never.
pub fn speaker(node: &Node, from: Option<&Speaker>) -> Result<User, Problem> {
    match from {
        Some(from) => from.user(),
        None => Speaker::Id(UserId(node.config.api.user.clone())).user(),
    }
}

/// # Errors
/// 404, as for all that is named in a path and is not there: no room can have this name.
pub fn check_room(name: &str) -> Result<(), Problem> {
    room::check(name).map_err(|why| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "bad_room",
            why,
            "use a name that a client could use",
        )
    })
}

/// # Errors
/// 404: no user can have this id.
pub fn check_user(id: &str) -> Result<(), Problem> {
    if (1..=USER_ID_BYTES_MAX).contains(&id.len()) && !id.contains(char::is_control) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::NOT_FOUND,
            "bad_user",
            "the id of a user has 1 to 256 bytes and no control characters",
            "copy it from a token or a list",
        ))
    }
}

/// # Errors
/// It is too long, too deep, or no Unicode text.
pub fn check_content(node: &Node, content: &RawValue) -> Result<(), Problem> {
    let most = node.config.limits.message_bytes;
    if content.get().len() > most {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("`content` is longer than limits.message_bytes, {most} bytes"),
            "send less, or a link to it",
        ));
    }
    client::check_content(content).map_err(|why| Problem::bad_request(why, "send what a strict JSON parser reads"))
}

/// # Errors
/// It is empty or too long.
pub fn check_key(key: Option<&str>) -> Result<(), Problem> {
    match key {
        // In characters, which is what a description can say.
        Some(key) if key.is_empty() || key.chars().count() > KEY_BYTES_MAX => Err(Problem::bad_request(
            "`key` has 1 to 64 characters",
            "send a UUID, or the id of what it is about",
        )),
        _ => Ok(()),
    }
}

/// What was said, numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub epoch: String,
    pub seq: u64,
}

/// Waits until the backplane has taken it, and counts it. Whoever stops waiting does not unsay it.
///
/// # Errors
/// 503: not accepted, or not known to be.
pub async fn placed(counters: Option<Arc<ShardCounters>>, spoken: Spoken) -> Result<Placed, Problem> {
    let (epoch, seq, again) = match spoken {
        Spoken::Kept { epoch, seq, again } => (epoch, seq, again),
        Spoken::Later(answer) => match outcome(answer).await {
            Outcome::New(place) => (place.epoch, place.seq, false),
            Outcome::Again(place) => (place.epoch, place.seq, true),
            Outcome::Refused(_) => return Err(refused()),
            Outcome::Unknown => return Err(unknown()),
        },
        Spoken::Unavailable | Spoken::Gone => return Err(refused()),
    };
    if let Some(counters) = counters {
        let counter = if again {
            &counters.duplicate_publishes
        } else {
            &counters.publishes
        };
        counter.inc();
    }
    Ok(Placed {
        epoch: epoch.to_string(),
        seq,
    })
}

/// Takes one chat from what may be said in the room per second, on this node.
///
/// # Errors
/// 429: it is one too many.
pub fn check_rate(node: &Node, room: &str, bytes: usize) -> Result<(), Problem> {
    let now_ns = node.shards.first().map_or(0, |shard| shard.now_ns());
    let taken = (node.ceilings).check_room(node.hub.class_of(room), &room.into(), bytes, now_ns);
    taken.map_err(|(limit, wait_ns)| {
        node.metrics.rate_limited(limit);
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "more is said in this room than its limit allows",
            "come again after Retry-After, or raise limits.room_messages_per_second, or what [[rooms]] says instead",
        )
        .retry_after(Duration::from_nanos(wait_ns))
    })
}

/// The room would be a new one here.
pub fn full_of_rooms(node: &Node) -> Problem {
    node.metrics.limit_hit(Limit::Rooms);
    Problem::unavailable(
        "unavailable",
        "this node holds as many rooms as it may",
        "come again after Retry-After, ask another node, or raise limits.rooms",
        RETRY,
    )
}

async fn outcome(answer: oneshot::Receiver<Outcome>) -> Outcome {
    answer.await.unwrap_or(Outcome::Unknown)
}

fn refused() -> Problem {
    Problem::unavailable(
        "unavailable",
        "not accepted for now: the backplane is away or behind, or this node is full",
        "send it again after Retry-After, with the same key if it has one",
        RETRY,
    )
}

/// A read that found nobody to answer it.
pub fn unanswered() -> Problem {
    Problem::unavailable(
        "unavailable",
        "the backplane did not answer",
        "ask again after Retry-After",
        RETRY,
    )
}

fn unknown() -> Problem {
    Problem::unavailable(
        "unavailable",
        "no answer came from the backplane: it may have been taken or not",
        "send it again after Retry-After with the same `key`; without one it may be there twice then",
        RETRY,
    )
}

/// What a call of the backplane comes to, in the words of a problem.
pub fn failed(failed: Failed) -> Problem {
    let (detail, fix): (Cow<'static, str>, _) = match failed {
        Failed::Unknown => (
            "no answer came from the backplane: it may have been done or not".into(),
            "do it again to be sure: twice does no harm",
        ),
        Failed::Refused(Refusal::Away) => (
            "the backplane cannot be reached: nobody was told".into(),
            "do it again after Retry-After; the runbook of BackplaneDown says more",
        ),
        Failed::Refused(refusal) => (
            format!("the backplane refused ({}): nobody was told", refusal.as_str()).into(),
            "do it again after Retry-After; its own log and the node's say why",
        ),
    };
    Problem::unavailable("unavailable", detail, fix, RETRY)
}
