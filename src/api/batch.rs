//! Many operations in one request.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::caller::{Caller, Scope};
use super::enter::spend;
use super::extract::{Json, objects, whole, whole_or_none};
use super::idempotency::Unfinished;
use super::problem::{self, Problem};
use super::revocations::{self, Revoke};
use super::rooms::{self, By, Chat, HistoryPage, TopPage, UsersPage};
use super::speak::Speaker;
use super::users::{self, Message};
use super::{audit, nodes};
use crate::runtime::Node;

/// Operations in one batch.
pub const OPERATIONS_MAX: usize = 100;

/// `{"operations":[{"operation":"chat","room":"lobby","content":"hi"},{"operation":"kick","user":"u7"}]}`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "Batch")]
pub struct Batch {
    /// At most 100.
    #[serde(deserialize_with = "objects")]
    #[schema(min_items = 1, max_items = 100)]
    pub operations: Vec<Operation>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Chat,
    Message,
    Users,
    History,
    Remove,
    Kick,
    Revoke,
    Rooms,
    Nodes,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Message => "message",
            Self::Users => "users",
            Self::History => "history",
            Self::Remove => "remove",
            Self::Kick => "kick",
            Self::Revoke => "revoke",
            Self::Rooms => "rooms",
            Self::Nodes => "nodes",
        }
    }
}

/// One operation: what is in the path, the query and the body of its own route, as fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "Operation")]
pub struct Operation {
    #[schema(inline)]
    pub operation: Word,
    pub room: Option<String>,
    pub user: Option<String>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<Value>)]
    pub content: Option<Box<RawValue>>,
    pub from: Option<Speaker>,
    #[schema(min_length = 1, max_length = 64)]
    pub key: Option<String>,
    #[schema(minimum = 0, maximum = 2_592_000)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub ban_s: Option<u64>,
    pub session: Option<String>,
    pub jti: Option<String>,
    #[schema(minimum = 0, maximum = 253_402_300_799_u64)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub issued_before: Option<u64>,
    #[schema(minimum = 0, maximum = 253_402_300_799_u64)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub expires: Option<u64>,
    /// Of `history` a number, of `users` an id.
    #[schema(inline)]
    pub after: Option<After>,
    #[schema(minimum = 0)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub before: Option<u64>,
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub limit: Option<u64>,
    #[schema(inline)]
    pub by: Option<By>,
}

/// Where a page begins.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`after` is a number in history, and the id of a user in users"
)]
pub enum After {
    Seq(#[serde(deserialize_with = "whole")] u64),
    User(String),
}

/// `null` is content too.
fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// `{"results":[{"status":200,"body":{…}},{"status":403,"problem":{…}}]}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Results {
    /// One per operation, in their order.
    pub results: Vec<Outcome>,
}

/// What became of one operation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Outcome")]
pub struct Outcome {
    /// As the operation's own route would have answered.
    pub status: u16,
    /// If it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub body: Option<Box<RawValue>>,
    /// If it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<problem::Body>,
}

/// Does many operations, each as its own route would
///
/// They begin one after the other, in their order, and one that fails stops no other: the answer is 200 with what became
/// of each. What is said in one room is numbered in the order of the batch.
#[utoipa::path(post, path = "/batch", operation_id = "batch", tag = "batch",
    request_body = Batch,
    responses(
        (status = 200, description = "What became of each", body = Results),
        (status = "4XX", description = "The batch as a whole is not good: nothing was done", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now, or not known to be done", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = [])))]
pub async fn batch(
    State(node): State<Arc<Node>>,
    caller: Caller,
    batch: Result<Json<Batch>, Problem>,
) -> Result<(Option<Extension<Unfinished>>, Answer<Results>), Problem> {
    // One that is refused as a whole costs what any request does.
    let refused = |problem| spend(&node, &caller, 1).err().unwrap_or(problem);
    let Json(batch) = batch.map_err(refused)?;
    let count = batch.operations.len();
    if !(1..=OPERATIONS_MAX).contains(&count) {
        return Err(refused(Problem::bad_request(
            format!("a batch has 1 to {OPERATIONS_MAX} operations, not {count}"),
            "send several batches, one after the other",
        )));
    }
    spend(&node, &caller, count)?;
    let mut results = Vec::with_capacity(count);
    let mut operations = batch.operations.into_iter().enumerate().peekable();
    while operations.peek().is_some() {
        // What only takes a place in a queue is begun together: a hundred chats cost one way to the backplane, not a hundred.
        let mut begun = Vec::new();
        while let Some((index, mut operation)) = operations.next_if(|(_, next)| begun.is_empty() || speaks(next)) {
            let alone = !speaks(&operation);
            let (word, about) = (operation.operation, about(&operation));
            if !alone {
                operation.key = caller.key_of(operation.key, index);
            }
            begun.push((word, about, begin(&node, &caller, operation)));
            if alone {
                break;
            }
        }
        for (word, about, running) in begun {
            let result = running.await;
            let code = result.as_ref().err().map_or("", |problem| problem.code);
            let outcome = Outcome::of(result);
            audit::line(&caller, word.as_str(), &about, outcome.status, code);
            results.push(outcome);
        }
    }
    let is_finished = results.iter().all(|outcome| !matches!(outcome.status, 429 | 500..));
    Ok((
        (!is_finished).then_some(Extension(Unfinished)),
        Answer(Results { results }),
    ))
}

fn speaks(operation: &Operation) -> bool {
    matches!(operation.operation, Word::Chat | Word::Message)
}

/// For the audit log.
fn about(operation: &Operation) -> String {
    let named = [
        ("room", &operation.room),
        ("user", &operation.user),
        ("session", &operation.session),
        ("jti", &operation.jti),
    ];
    let named = named
        .iter()
        .filter_map(|(what, name)| Some(format!("{what} {}", name.as_ref()?)));
    named.collect::<Vec<_>>().join(" ")
}

type Running = Pin<Box<dyn Future<Output = Result<Box<RawValue>, Problem>> + Send>>;

/// Begins an operation; what is said has its place in the queue when this returns.
fn begin(node: &Arc<Node>, caller: &Caller, operation: Operation) -> Running {
    match try_begin(node, caller, operation) {
        Ok(running) => running,
        Err(problem) => Box::pin(std::future::ready(Err(problem))),
    }
}

fn try_begin(node: &Arc<Node>, caller: &Caller, operation: Operation) -> Result<Running, Problem> {
    let word = operation.operation;
    if !speaks(&operation) {
        let (node, caller) = (Arc::clone(node), caller.clone());
        return Ok(Box::pin(async move { ask(&node, &caller, operation).await }));
    }
    let content = needed(operation.content, "content")?;
    Ok(if word == Word::Chat {
        let chat = Chat {
            content,
            from: operation.from,
            key: operation.key,
        };
        let said = rooms::say(node, caller, needed(operation.room, "room")?, &chat)?;
        Box::pin(async move { json(&said.await?) })
    } else {
        caller.needs(Scope::Message)?;
        let message = Message {
            content,
            from: operation.from,
            key: operation.key,
        };
        let told = users::tell(node, &needed(operation.user, "user")?, &message)?;
        Box::pin(async move { json(&told.await?) })
    })
}

async fn ask(node: &Node, caller: &Caller, operation: Operation) -> Result<Box<RawValue>, Problem> {
    let (room, user) = (operation.room, operation.user);
    match operation.operation {
        Word::Users => {
            let after = match operation.after {
                None => None,
                Some(After::User(id)) => Some(id),
                Some(After::Seq(_)) => return Err(mistyped("after", "the id of a user")),
            };
            let page = UsersPage {
                after,
                limit: limit(operation.limit),
            };
            json(&rooms::present(node, caller, needed(room, "room")?, &page).await?)
        }
        Word::History => {
            let after = match operation.after {
                None => None,
                Some(After::Seq(seq)) => Some(seq),
                Some(After::User(_)) => return Err(mistyped("after", "a number")),
            };
            let page = HistoryPage {
                before: operation.before,
                after,
                limit: limit(operation.limit),
            };
            let page = rooms::said(node, caller, &needed(room, "room")?, &page).await?;
            String::from_utf8(page)
                .ok()
                .and_then(|page| RawValue::from_string(page).ok())
                .ok_or_else(unwritten)
        }
        Word::Remove => {
            let (room, user) = (needed(room, "room")?, needed(user, "user")?);
            json(&rooms::leave(node, caller, room, user).await?)
        }
        Word::Kick => {
            caller.needs(Scope::Kick)?;
            json(&users::end(node, needed(user, "user")?, operation.ban_s.unwrap_or(0)).await?)
        }
        Word::Revoke => {
            let revoke = Revoke {
                user,
                session: operation.session,
                jti: operation.jti,
                issued_before: operation.issued_before,
                expires: operation.expires,
            };
            json(&revocations::take_back(node, caller, revoke).await?)
        }
        Word::Rooms => {
            let page = TopPage {
                by: operation.by,
                limit: limit(operation.limit),
            };
            json(&rooms::top(node, caller, &page).await?)
        }
        Word::Nodes => json(&nodes::all(node, caller)?),
        Word::Chat | Word::Message => Err(unwritten()),
    }
}

/// What does not fit is too many in any case.
fn limit(limit: Option<u64>) -> Option<usize> {
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn needed<T>(field: Option<T>, name: &str) -> Result<T, Problem> {
    field.ok_or_else(|| {
        Problem::bad_request(
            format!("`{name}` is missing"),
            "an operation has as fields what is in the path, the query and the body of its own route",
        )
    })
}

fn mistyped(name: &str, what: &str) -> Problem {
    Problem::bad_request(
        format!("`{name}` must be {what}"),
        "an operation has as fields what is in the path, the query and the body of its own route",
    )
}

fn json(answer: &impl Serialize) -> Result<Box<RawValue>, Problem> {
    to_raw_value(answer).map_err(|_| unwritten())
}

fn unwritten() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "done, but the answer could not be written",
        "the node's log says more",
    )
}

impl Outcome {
    fn of(result: Result<Box<RawValue>, Problem>) -> Self {
        match result {
            Ok(body) => Self {
                status: StatusCode::OK.as_u16(),
                body: Some(body),
                problem: None,
            },
            Err(problem) => Self {
                status: problem.status.as_u16(),
                body: None,
                problem: Some(problem.body()),
            },
        }
    }
}
