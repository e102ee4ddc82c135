//! `POST /api/kick`: ends somebody's connections on all nodes, and keeps a user out for a while if asked to.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::{Json, extract::rejection::JsonRejection};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::Admin;
use super::answer::Problem;
use super::audit::Caller;
use crate::backplane::contract::{Failed, Refusal, Subject};
use crate::limits::USER_ID_BYTES_MAX;

/// An answer comes within the time that a connection has here, whatever the backplane does.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longest ban: whoever is to stay away longer loses his account, not his connection.
const BAN_SECONDS_MAX: u64 = 30 * 24 * 3_600;

/// `{"user":"ann","ban_seconds":60}` or `{"session":"s-9f…"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    user: Option<String>,
    session: Option<String>,
    #[serde(default)]
    ban_seconds: u64,
}

/// All nodes were told.
#[derive(Debug, Serialize)]
pub struct Told {
    /// For a person: `user ann`.
    kicked: String,
    /// Seconds since the Unix epoch; none without a ban.
    banned_until: Option<u64>,
    took_ms: u64,
}

/// `POST /api/kick`
pub async fn kick(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<Json<Told>, Problem> {
    let Json(wish) = wish.map_err(|_| unclear())?;
    let subject = subject(&wish)?;
    let named = match &subject {
        Subject::User(id) => format!("user {id}"),
        Subject::Session(id) | Subject::Token(id) => format!("session {id}"),
    };
    let ban = (wish.ban_seconds > 0).then(|| Duration::from_secs(wish.ban_seconds));
    let what = match &ban {
        None => named.clone(),
        Some(_) => format!("{named}, banned for {} s", wish.ban_seconds),
    };
    let audit = caller.begin("kick", what);
    let begun = Instant::now();
    let told = timeout(PATIENCE, admin.node.warden.kick(subject, ban)).await;
    let banned_until = match told.unwrap_or(Err(Failed::Unknown)) {
        Ok(banned_until) => banned_until,
        Err(failed) => {
            audit.done(&failed.to_string());
            return Err(explained(failed));
        }
    };
    audit.done("ok");
    Ok(Json(Told {
        kicked: named,
        banned_until,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

fn subject(wish: &Wish) -> Result<Subject, Problem> {
    let (subject, id) = match (&wish.user, &wish.session) {
        (Some(id), None) => (Subject::User(id.as_str().into()), id),
        (None, Some(id)) if wish.ban_seconds == 0 => (Subject::Session(id.as_str().into()), id),
        (None, Some(_)) => {
            return Err(Problem::bad_request(
                "a session cannot be banned: it never comes back under its name",
                "ban the user",
            ));
        }
        _ => return Err(unclear()),
    };
    let is_id = (1..=USER_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control);
    if !is_id {
        return Err(Problem::bad_request(
            "an id has 1 to 256 bytes and no control characters",
            "copy it from a list or a tap",
        ));
    }
    if wish.ban_seconds > BAN_SECONDS_MAX {
        return Err(Problem::bad_request(
            format!("a ban of {} s is longer than {BAN_SECONDS_MAX} s", wish.ban_seconds),
            "close the account instead",
        ));
    }
    Ok(subject)
}

fn unclear() -> Problem {
    Problem::bad_request(
        "the body does not say whom to kick",
        "send JSON such as {\"user\":\"ann\",\"ban_seconds\":60} or {\"session\":\"s-…\"}, with Content-Type: application/json",
    )
}

fn explained(failed: Failed) -> Problem {
    let unavailable = |code, detail, fix| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail, fix);
    match failed {
        Failed::Unknown => unavailable(
            "unknown",
            "no answer came from the backplane: it may have been done or not",
            "do it again to be sure",
        ),
        Failed::Refused(Refusal::Away) => unavailable(
            "away",
            "the backplane cannot be reached: nobody was told",
            "see the runbook of BackplaneDown",
        ),
        Failed::Refused(refusal) => unavailable(
            refusal.as_str(),
            "the backplane refused: nobody was told",
            "its own log and the node's say why",
        ),
    }
}
