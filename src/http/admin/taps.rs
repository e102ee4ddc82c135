//! `POST /api/tap`, `GET /api/tap/{id}`, `DELETE /api/tap/{id}`: a live view of one room or one user.
//!
//! Fetched piece by piece, each a request of its own that waits a little for something to come: so no connection here
//! outlives its deadline, and whoever stops asking has ended the tap.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Admin;
use super::answer::Problem;
use super::audit::Caller;
use crate::limits::USER_ID_BYTES_MAX;
use crate::telemetry::taps::{Of, Tap, shown};

/// A fetch waits so long for a line; shorter than a connection here may live.
const PATIENCE: Duration = Duration::from_secs(5);

/// A tap that nobody fetched from for so long has been left.
const LEFT_AFTER: Duration = Duration::from_secs(20);

/// Taps that are open.
#[derive(Default)]
pub struct Open(Mutex<HashMap<String, Held>>);

struct Held {
    tap: Arc<Tap>,
    caller: Caller,
    begun: Instant,
    fetched: Instant,
    /// Lines shown and left out so far.
    lines: u64,
    left_out: u64,
}

/// `{"room":"lobby"}` or `{"user":"ann"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    room: Option<String>,
    user: Option<String>,
}

/// A tap that has begun.
#[derive(Debug, Serialize)]
pub struct Begun {
    id: String,
    /// Whether this node has that room now; of a user nobody knows without asking every connection.
    is_here: Option<bool>,
    lines_per_second: u32,
    ends_in_seconds: u64,
    /// Whether what is said is shown.
    content: bool,
}

/// What came since the last time.
#[derive(Debug, Serialize)]
pub struct Piece {
    lines: Vec<Value>,
    /// Lines over `lines_per_second` since the last time.
    left_out: u64,
    ends_in_seconds: u64,
}

/// `POST /api/tap`
pub async fn begin(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<Begun>), Problem> {
    let Json(wish) = wish.map_err(|_| unclear())?;
    let of = of(wish)?;
    let audit = caller.begin("tap", named(&of));
    let config = &admin.node.config.admin;
    let id = uuid::Uuid::new_v4().simple().to_string();
    let now = Instant::now();
    {
        let mut open = admin.taps.0.lock();
        if open.len() >= config.taps {
            audit.done("refused: too many taps");
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "too_many_taps",
                format!("{} taps are open, as many as admin.taps allows", open.len()),
                "end one, or wait until it ends by itself",
            ));
        }
        let tap = admin.node.hub.taps().begin(of.clone(), config.tap_lines_per_second);
        open.insert(
            id.clone(),
            Held {
                tap,
                caller,
                begun: now,
                fetched: now,
                lines: 0,
                left_out: 0,
            },
        );
        admin.node.metrics.taps(open.len());
    }
    audit.done("begun");
    let is_here = match &of {
        Of::Room(name) => Some(admin.node.hub.find(name).is_some()),
        Of::User(_) => None,
    };
    let begun = Begun {
        id,
        is_here,
        lines_per_second: config.tap_lines_per_second,
        ends_in_seconds: config.tap_time.as_secs(),
        content: config.tap_content,
    };
    Ok((StatusCode::CREATED, Json(begun)))
}

/// `GET /api/tap/{id}`
pub async fn fetch(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Piece>, Problem> {
    admin.end_old_taps(Instant::now());
    let tap = {
        let mut open = admin.taps.0.lock();
        let held = own(&mut open, &id, &caller)?;
        held.fetched = Instant::now();
        Arc::clone(&held.tap)
    };
    let fetched = tap.fetch(PATIENCE).await;
    let content = admin.node.config.admin.tap_content;
    let lines: Vec<Value> = fetched.lines.iter().map(|line| shown(line, content)).collect();
    let mut open = admin.taps.0.lock();
    let held = own(&mut open, &id, &caller)?;
    let now = Instant::now();
    held.fetched = now;
    held.lines += lines.len() as u64;
    held.left_out += fetched.left_out;
    let left = admin.node.config.admin.tap_time.saturating_sub(now - held.begun);
    Ok(Json(Piece {
        lines,
        left_out: fetched.left_out,
        ends_in_seconds: left.as_secs(),
    }))
}

/// `DELETE /api/tap/{id}`
pub async fn end(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let held = {
        let mut open = admin.taps.0.lock();
        own(&mut open, &id, &caller)?;
        open.remove(&id)
    };
    if let Some(held) = held {
        admin.end_tap(&held, "ended");
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Admin {
    /// Ends taps whose time is over, and those that nobody looks at any more. Called now and then.
    pub fn end_old_taps(&self, now: Instant) {
        let time = self.node.config.admin.tap_time;
        let is_over = |_: &String, held: &mut Held| now.saturating_duration_since(held.begun) >= time;
        let is_left = |_: &String, held: &mut Held| now.saturating_duration_since(held.fetched) >= LEFT_AFTER;
        let (over, left): (Vec<_>, Vec<_>) = {
            let mut open = self.taps.0.lock();
            if open.is_empty() {
                return;
            }
            (open.extract_if(is_over).collect(), open.extract_if(is_left).collect())
        };
        for (_, held) in &over {
            self.end_tap(held, "its time was over");
        }
        for (_, held) in &left {
            self.end_tap(held, "nobody looked");
        }
    }

    fn end_tap(&self, held: &Held, why: &str) {
        let taps = self.node.hub.taps();
        taps.end(&held.tap);
        self.node.metrics.taps(taps.open());
        let result = format!("{why}: {} lines shown, {} left out", held.lines, held.left_out);
        held.caller.begin("tap_end", named(&held.tap.of)).done(&result);
    }
}

/// The tap of that id, if it is the caller's.
fn own<'a>(open: &'a mut HashMap<String, Held>, id: &str, caller: &Caller) -> Result<&'a mut Held, Problem> {
    let held = open.get_mut(id).filter(|held| held.caller.name == caller.name);
    held.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no_tap",
            "there is no such tap of yours, or not any more",
            "begin another",
        )
    })
}

fn of(wish: Wish) -> Result<Of, Problem> {
    let (of, name) = match (wish.room, wish.user) {
        (Some(room), None) => (Of::Room(room.as_str().into()), room),
        (None, Some(user)) => (Of::User(user.as_str().into()), user),
        _ => return Err(unclear()),
    };
    if name.is_empty() || name.len() > USER_ID_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Problem::bad_request(
            "that is neither a room's name nor a user's id",
            "copy it from a list",
        ));
    }
    Ok(of)
}

fn named(of: &Of) -> String {
    match of {
        Of::Room(name) => format!("room {name}"),
        Of::User(id) => format!("user {id}"),
    }
}

fn unclear() -> Problem {
    Problem::bad_request(
        "the body does not say what to look at",
        "send JSON such as {\"room\":\"lobby\"} or {\"user\":\"ann\"}, with Content-Type: application/json",
    )
}
