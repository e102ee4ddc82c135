//! What is said in rooms, who is in them, and which are large or busy.

use std::cmp::Reverse;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::caller::{Caller, Scope};
use super::extract::{Json, Path, Query};
use super::problem::{self, Problem};
use super::speak::{self, Speaker};
use super::users;
use crate::backplane::contract::RoomKey;
use crate::hub::room::{People, Read, Words};
use crate::limits::{HISTORY_PAGE_DEFAULT, HISTORY_PAGE_MAX};
use crate::protocol::client::Page;
use crate::runtime::{Node, TopRoom, now_ms};

/// Users in one answer when the request names no limit.
const USERS_PAGE_DEFAULT: usize = 100;
/// Users in one answer at most.
const USERS_PAGE_MAX: usize = 1_000;
/// Rooms in one answer when the request names no limit.
const TOP_DEFAULT: usize = 10;
/// Rooms in one answer at most: so many does each node tell the others of.
const TOP_MAX: usize = crate::runtime::TOP_ROOMS;
/// The largest number that every JSON parser reads exactly; no room comes near it.
const SEQ_MAX: u64 = (1 << 53) - 1;
/// How long the backplane may take to answer a question.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// `{"content":{"price":17},"from":{"id":"shop","name":"Shop"},"key":"order-17"}`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "Chat")]
pub struct Chat {
    /// Any JSON, at most `limits.message_bytes`, nested at most 31 deep.
    #[schema(value_type = Value, example = "hello from the backend")]
    pub content: Box<RawValue>,
    /// Whom the application speaks for; without it that is `api.user`.
    pub from: Option<Speaker>,
    /// Makes a retry harmless for the key window: of one speaker in one room the first content wins, and a retry is
    /// answered with the first one's place.
    #[schema(min_length = 1, max_length = 64, example = "order-17")]
    pub key: Option<String>,
}

/// `{"room":"lobby","epoch":"5d0b…","seq":42}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Said {
    pub room: String,
    /// Who numbered it.
    pub epoch: String,
    /// Its number in the room.
    #[schema(minimum = 1)]
    pub seq: u64,
}

/// Says something to everyone in a room, whether anybody is there or not
///
/// In one order with what clients say, and in history like it. 200 is said only after the backplane has taken it.
#[utoipa::path(post, path = "/rooms/{room}/chat", operation_id = "chat", tag = "rooms",
    params(("room" = String, Path, description = "The name of the room, percent-encoded: team%2F42", min_length = 1, max_length = 128)),
    request_body = Chat,
    responses(
        (status = 200, description = "Kept, and on its way to everyone in the room", body = Said),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now, or not known to be done", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["publish"])))]
pub async fn chat(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Path(room): Path<String>,
    Json(mut chat): Json<Chat>,
) -> Result<Answer<Said>, Problem> {
    chat.key = caller.key_of(chat.key, 0);
    say(&node, &caller, room, &chat)?.await.map(Answer)
}

/// Begins to say something; its place among what is said in the room is taken when this returns.
///
/// # Errors
/// It is not good or not allowed; 503 comes from the future.
pub fn say(
    node: &Node,
    caller: &Caller,
    room: String,
    chat: &Chat,
) -> Result<impl Future<Output = Result<Said, Problem>> + Send + use<>, Problem> {
    caller.needs_in(Scope::Publish, &room)?;
    speak::check_room(&room)?;
    speak::check_content(node, &chat.content)?;
    speak::check_key(chat.key.as_deref())?;
    let speaker = speak::speaker(node, chat.from.as_ref())?;
    speak::check_rate(node, &room, chat.content.get().len())?;
    let words = Words {
        user: &speaker,
        content: chat.content.get(),
        key: chat.key.as_deref(),
        trace: None,
        now_ms: now_ms(),
    };
    let spoken = (node.hub.speak(&room, &words)).map_err(|_| speak::full_of_rooms(node))?;
    // All shards are summed up; which of them counts does not matter.
    let counters = node.shards.first().map(|shard| Arc::clone(&shard.counters));
    let placed = speak::placed(counters, spoken);
    Ok(async move {
        let placed = placed.await?;
        Ok(Said {
            room,
            epoch: placed.epoch,
            seq: placed.seq,
        })
    })
}

/// Which users.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsersPage {
    /// Only those whose id comes after this one: the last of the page before.
    pub after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<usize>,
}

/// `{"room":"lobby","users":[{"id":"u7","name":"Ann"}],"count":1,"more":false,"as_of":1767225600000}`
#[derive(Debug, Serialize, ToSchema)]
pub struct RoomUsers {
    pub room: String,
    /// In the order of their ids.
    #[schema(value_type = Vec<RoomUser>)]
    pub users: Vec<Box<RawValue>>,
    /// All users in the room.
    pub count: usize,
    /// Whether there are users after the last of these.
    pub more: bool,
    /// When this was last known to be right, ms since the Unix epoch.
    pub as_of: u64,
}

/// A user, as room mates see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoomUser {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub info: Option<Box<RawValue>>,
}

/// Who is in a room, on all nodes
///
/// A room that nobody knows has no users.
#[utoipa::path(get, path = "/rooms/{room}/users", operation_id = "users", tag = "rooms",
    params(
        ("room" = String, Path, description = "The name of the room, percent-encoded: team%2F42", min_length = 1, max_length = 128),
        UsersPage,
    ),
    responses(
        (status = 200, description = "Those who are there", body = RoomUsers),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["read"])))]
pub async fn users(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Path(room): Path<String>,
    Query(page): Query<UsersPage>,
) -> Result<Answer<RoomUsers>, Problem> {
    present(&node, &caller, room, &page).await.map(Answer)
}

/// Who is in a room.
///
/// # Errors
/// The request is not good or not allowed, or the backplane does not answer.
pub async fn present(node: &Node, caller: &Caller, room: String, page: &UsersPage) -> Result<RoomUsers, Problem> {
    caller.needs_in(Scope::Read, &room)?;
    speak::check_room(&room)?;
    let limit = limit(page.limit, USERS_PAGE_DEFAULT, USERS_PAGE_MAX)?;
    let after = page.after.as_deref();
    let here = (node.hub.find(&room)).and_then(|found| found.people(after, limit, now_ms()));
    let people = match (here, &node.cluster) {
        (Some(people), _) => people,
        (None, None) => People {
            as_of_ms: now_ms(),
            ..People::default()
        },
        (None, Some(cluster)) => {
            let key = RoomKey::new(room.as_str().into());
            let asked_ms = now_ms();
            let users = timeout(ANSWER_TIME_MAX, cluster.users(&key)).await;
            let users = users.map_err(|_| speak::unanswered())?;
            let users = users.map_err(|_| speak::unanswered())?;
            People::page(users.iter().map(|(id, json)| (id, json)), after, limit, asked_ms)
        }
    };
    let users = people.users.iter().map(|(_, json)| raw(json));
    Ok(RoomUsers {
        room,
        users: users.collect::<Result<_, _>>()?,
        count: people.count,
        more: people.more,
        as_of: people.as_of_ms,
    })
}

/// What this server wrote, or another node.
fn raw(json: &str) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(json.to_owned()).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the backplane holds something under this room that is no user",
            "does something else write to the backplane?",
        )
    })
}

/// Which chats.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryPage {
    /// The newest below this `seq`. Not looked at beside `after`.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub before: Option<u64>,
    /// The oldest above this `seq`. Without either: the newest.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub after: Option<u64>,
    /// How many at most. A page may be shorter: it ends at 128 KiB.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<usize>,
}

/// As clients get it: `{"type":"history","room":"lobby","epoch":"5d0b…","messages":[…],"first":1,"more":false}`
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    #[serde(rename = "type")]
    #[schema(example = "history")]
    pub kind: String,
    pub room: String,
    /// Who numbers the newest chats.
    pub epoch: String,
    /// Ascending. The first of each epoch names it, unless that is the newest.
    pub messages: Vec<HistoryChat>,
    /// The oldest `seq` that is kept.
    pub first: u64,
    /// Whether there are more in the direction that was asked for.
    pub more: bool,
}

/// `{"type":"chat","room":"lobby","seq":42,"from":{"id":"u7"},"content":"hi","time":1767225600000}`
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryChat {
    #[serde(rename = "type")]
    #[schema(example = "chat")]
    pub kind: String,
    pub room: String,
    pub seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    pub from: RoomUser,
    #[schema(value_type = Value)]
    pub content: Box<RawValue>,
    /// ms since the Unix epoch.
    pub time: u64,
}

/// What was said in a room
///
/// 404 if no node has the room and nothing of it is kept.
#[utoipa::path(get, path = "/rooms/{room}/history", operation_id = "history", tag = "rooms",
    params(
        ("room" = String, Path, description = "The name of the room, percent-encoded: team%2F42", min_length = 1, max_length = 128),
        HistoryPage,
    ),
    responses(
        (status = 200, description = "A page", body = History),
        (status = "4XX", description = "The request is not good, or not allowed, or there is no such room", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["read"])))]
pub async fn history(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Path(room): Path<String>,
    Query(page): Query<HistoryPage>,
) -> Result<Response, Problem> {
    let page = said(&node, &caller, &room, &page).await?;
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(([kind], page).into_response())
}

/// A page of history, as JSON.
///
/// # Errors
/// The request is not good or not allowed, there is no such room, or the backplane does not answer.
pub async fn said(node: &Node, caller: &Caller, room: &str, page: &HistoryPage) -> Result<Vec<u8>, Problem> {
    caller.needs_in(Scope::Read, room)?;
    speak::check_room(room)?;
    let limit = limit(page.limit, HISTORY_PAGE_DEFAULT, HISTORY_PAGE_MAX)?;
    let page = match (page.before, page.after) {
        (None, None) => Page::Latest,
        (Some(seq), None) => Page::Before(seq),
        (_, Some(seq)) => Page::After(seq),
    };
    if page_seq(&page) > SEQ_MAX {
        return Err(Problem::bad_request(
            format!("`before` and `after` are numbers from 0 to {SEQ_MAX}"),
            "send the `seq` of a chat",
        ));
    }
    if !is_known(node, room).await? {
        return Err(Problem::not_found(
            "nobody has been in this room, and nothing was said in it, for as long as that is kept",
            "is the name right?",
        ));
    }
    let read = node.hub.read(room, page, limit, now_ms());
    let frame = match read.map_err(|_| speak::full_of_rooms(node))? {
        Read::Now(frame) => frame,
        Read::Later(answer) => {
            let answer = timeout(ANSWER_TIME_MAX, answer)
                .await
                .map_err(|_| speak::unanswered())?;
            answer.map_err(|_| speak::unanswered())?
        }
        Read::Unavailable | Read::Gone => return Err(speak::unanswered()),
    };
    Ok(frame.payload().to_vec())
}

fn page_seq(page: &Page) -> u64 {
    match page {
        Page::Latest => 0,
        Page::Before(seq) | Page::After(seq) => *seq,
    }
}

/// Whether there is such a room on any node, or was lately.
async fn is_known(node: &Node, room: &str) -> Result<bool, Problem> {
    let here = node.hub.find(room);
    let Some(cluster) = &node.cluster else {
        return Ok(here.is_some());
    };
    if here.is_some_and(|room| room.at().is_some()) {
        return Ok(true);
    }
    let key = RoomKey::new(room.into());
    let known = timeout(ANSWER_TIME_MAX, cluster.knows(&key)).await;
    known.map_err(|_| speak::unanswered())?.map_err(|_| speak::unanswered())
}

fn limit(asked: Option<usize>, default: usize, most: usize) -> Result<usize, Problem> {
    match asked {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::bad_request(
            format!("`limit` is a number from 1 to {most}"),
            "ask for the next page besides",
        )),
    }
}

/// `{"room":"lobby","user":"u7"}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Removed {
    pub room: String,
    pub user: String,
}

/// Takes a user out of a room, on all nodes
///
/// Each of its connections that is in the room is told `removed`. It may join again unless its token says otherwise.
#[utoipa::path(delete, path = "/rooms/{room}/users/{user}", operation_id = "remove", tag = "rooms",
    params(
        ("room" = String, Path, description = "The name of the room, percent-encoded: team%2F42", min_length = 1, max_length = 128),
        ("user" = String, Path, description = "The id of the user, percent-encoded", min_length = 1, max_length = 256),
    ),
    responses(
        (status = 200, description = "All nodes are told, whether the user was there or not", body = Removed),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now, or not known to be done", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["kick"])))]
pub async fn remove(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Path((room, user)): Path<(String, String)>,
) -> Result<Answer<Removed>, Problem> {
    leave(&node, &caller, room, user).await.map(Answer)
}

/// Takes a user out of a room.
///
/// # Errors
/// The request is not good or not allowed, or the backplane did not take it.
pub async fn leave(node: &Node, caller: &Caller, room: String, user: String) -> Result<Removed, Problem> {
    caller.needs_in(Scope::Kick, &room)?;
    speak::check_room(&room)?;
    speak::check_user(&user)?;
    users::remove(node, &user, &room)?.await?;
    Ok(Removed { room, user })
}

/// By what rooms are compared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Connections.
    #[default]
    Members,
    /// Chats per second.
    Rate,
}

/// Which rooms.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TopPage {
    /// By what they are compared.
    #[param(inline)]
    pub by: Option<By>,
    /// How many at most.
    #[param(minimum = 1, maximum = 100, default = 10)]
    pub limit: Option<usize>,
}

/// `{"rooms":[{"room":"lobby","members":3,"users":2,"chats_per_second":0.4}]}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Top {
    /// The largest first.
    pub rooms: Vec<TopLine>,
}

/// One room.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopLine {
    pub room: String,
    /// Connections, on those nodes where the room is among the first hundred.
    pub members: u64,
    /// Users, on all nodes.
    pub users: u64,
    pub chats_per_second: f64,
}

/// The largest rooms, or the busiest, on all nodes
///
/// As each node saw them in the last few seconds.
#[utoipa::path(get, path = "/rooms", operation_id = "rooms", tag = "rooms",
    params(TopPage),
    responses(
        (status = 200, description = "The first few", body = Top),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["read"])))]
pub async fn rooms(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Query(page): Query<TopPage>,
) -> Result<Answer<Top>, Problem> {
    top(&node, &caller, &page).await.map(Answer)
}

/// The first few rooms that the caller may read.
///
/// # Errors
/// The request is not good or not allowed.
pub async fn top(node: &Node, caller: &Caller, page: &TopPage) -> Result<Top, Problem> {
    caller.needs(Scope::Read)?;
    let limit = limit(page.limit, TOP_DEFAULT, TOP_MAX)?;
    let by = page.by.unwrap_or_default();
    let mut rooms = node.all_top_rooms().await;
    rooms.retain(|room| caller.reaches(Scope::Read, &room.room));
    let size = |room: &TopRoom| match by {
        By::Members => room.members,
        By::Rate => room.rate,
    };
    rooms.retain(|room| size(room) > 0);
    rooms.sort_by_key(|room| (Reverse(size(room)), Arc::clone(&room.room)));
    rooms.truncate(limit);
    let line = |room: TopRoom| TopLine {
        room: room.room.to_string(),
        members: room.members,
        users: room.users,
        chats_per_second: room.rate as f64 / 1_000.0,
    };
    Ok(Top {
        rooms: rooms.into_iter().map(line).collect(),
    })
}
