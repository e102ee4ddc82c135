//! What is for users, wherever they are: messages, and the end of their connections.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::caller::{Caller, Scope};
use super::extract::{Json, OptionalJson, Path, whole};
use super::problem::{self, Problem};
use super::speak::{self, Speaker};
use crate::backplane::contract::Subject;
use crate::hub::User;
use crate::hub::post::Letter;
use crate::hub::room::Words;
use crate::runtime::{Node, now_ms};

/// Longest ban: whoever is to stay away longer loses the account, not the connection.
pub const BAN_SECONDS_MAX: u64 = 30 * 24 * 3_600;

/// `{"content":"your order has left","from":"shop","key":"order-17"}`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "Message")]
pub struct Message {
    /// Any JSON, at most `limits.message_bytes`, nested at most 31 deep.
    #[schema(value_type = Value, example = "your order has left")]
    pub content: Box<RawValue>,
    /// Whom the application speaks for; without it the message names nobody.
    pub from: Option<Speaker>,
    /// Makes a retry harmless for the key window: of one speaker to one user the first content wins.
    #[schema(min_length = 1, max_length = 64, example = "order-17")]
    pub key: Option<String>,
}

/// `{"accepted":true}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// Every node that lives hears of it; whether the user is connected to any is not known here.
    pub accepted: bool,
}

/// Tells every connection of a user something, on all nodes
#[utoipa::path(post, path = "/users/{user}/message", operation_id = "message", tag = "users",
    params(("user" = String, Path, description = "The id of the user, percent-encoded", min_length = 1, max_length = 256)),
    request_body = Message,
    responses(
        (status = 200, description = "All nodes are told", body = Accepted),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now, or not known to be done", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["message"])))]
pub async fn message(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Path(user): Path<String>,
    Json(mut message): Json<Message>,
) -> Result<Answer<Accepted>, Problem> {
    caller.needs(Scope::Message)?;
    message.key = caller.key_of(message.key, 0);
    tell(&node, &user, &message)?.await.map(Answer)
}

/// Begins to tell a user something; its place among others is taken when this returns.
///
/// # Errors
/// It is not good; 503 comes from the future.
pub fn tell(
    node: &Node,
    user: &str,
    message: &Message,
) -> Result<impl Future<Output = Result<Accepted, Problem>> + Send + use<>, Problem> {
    speak::check_user(user)?;
    speak::check_content(node, &message.content)?;
    speak::check_key(message.key.as_deref())?;
    let speaker = speak::speaker(node, message.from.as_ref())?;
    let from = message.from.as_ref().map(|_| raw(&speaker.json)).transpose()?;
    // No id has a line break: of two users no two keys become one.
    let key = message.key.as_ref().map(|key| [user, "\n", key].concat());
    let letter = Letter::message(user, from.as_deref(), &message.content);
    let sent = post(node, &speaker, key.as_deref(), &letter);
    Ok(async move { sent.await.map(|()| Accepted { accepted: true }) })
}

/// Has a user leave a room, on all nodes.
pub fn remove(
    node: &Node,
    user: &str,
    room: &str,
) -> Result<impl Future<Output = Result<(), Problem>> + Send + use<>, Problem> {
    let speaker = speak::speaker(node, None)?;
    Ok(post(node, &speaker, None, &Letter::leave(user, room)))
}

fn post(
    node: &Node,
    speaker: &User,
    key: Option<&str>,
    letter: &Letter<'_>,
) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
    let spoken = node.hub.post().speak(&Words {
        user: speaker,
        content: &letter.seal(),
        key,
        trace: None,
        now_ms: now_ms(),
    });
    let placed = speak::placed(None, spoken);
    async move { placed.await.map(drop) }
}

fn raw(json: &str) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(json.to_owned())
        .map_err(|_| Problem::bad_request("`from` is not good", "write it as in a token"))
}

/// `{"ban_s":3600}`
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "Kick")]
pub struct Kick {
    /// For so many seconds, at most 30 days, no token of the user that was issued by then is good; 0 or nothing: the user
    /// may come back at once.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 2_592_000, example = 3600)]
    pub ban_s: u64,
}

/// `{"user":"u7","banned_until":1767225600}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Kicked {
    /// Who.
    pub user: String,
    /// Unix seconds; absent without a ban.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banned_until: Option<u64>,
}

/// Ends every connection of a user, on all nodes, and keeps the user out for a while if asked to
#[utoipa::path(post, path = "/users/{user}/kick", operation_id = "kick", tag = "users",
    params(("user" = String, Path, description = "The id of the user, percent-encoded", min_length = 1, max_length = 256)),
    request_body(content = Option<Kick>),
    responses(
        (status = 200, description = "All nodes are told", body = Kicked),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now, or not known to be done", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["kick"])))]
pub async fn kick(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Path(user): Path<String>,
    OptionalJson(kick): OptionalJson<Kick>,
) -> Result<Answer<Kicked>, Problem> {
    caller.needs(Scope::Kick)?;
    end(&node, user, kick.unwrap_or_default().ban_s).await.map(Answer)
}

/// Ends every connection of a user.
///
/// # Errors
/// No such user can be, the ban is too long, or the backplane did not take it.
pub async fn end(node: &Node, user: String, ban_s: u64) -> Result<Kicked, Problem> {
    speak::check_user(&user)?;
    if ban_s > BAN_SECONDS_MAX {
        return Err(Problem::bad_request(
            format!("a ban of {ban_s} s is longer than {BAN_SECONDS_MAX} s"),
            "close the account instead, and revoke its tokens",
        ));
    }
    let ban = (ban_s > 0).then(|| Duration::from_secs(ban_s));
    let subject = Subject::User(user.as_str().into());
    let banned_until = node.warden.kick(subject, ban).await.map_err(speak::failed)?;
    Ok(Kicked { user, banned_until })
}
