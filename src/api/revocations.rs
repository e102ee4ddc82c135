//! Tokens that no longer count.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::{Caller, Scope};
use super::extract::{Json, whole_or_none};
use super::problem::{self, Problem};
use super::speak;
use crate::auth;
use crate::backplane::contract::{Control, Revocation, Subject};
use crate::limits::USER_ID_BYTES_MAX;
use crate::runtime::Node;

/// The last second of the year 9999: above it somebody wrote milliseconds.
const TIME_MAX: u64 = 253_402_300_799;

/// `{"user":"u7"}`, `{"session":"s-9f…"}` or `{"jti":"t-17"}`
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(title = "Revoke")]
pub struct Revoke {
    /// Every token of this user that was issued until `issued_before`, and those that do not say when.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$",
        example = "u7"
    )]
    pub user: Option<String>,
    /// The token of this connection, as `connected.session` names it, for this connection.
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub session: Option<String>,
    /// The token with this `jti`.
    #[schema(min_length = 1, max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub jti: Option<String>,
    /// Unix seconds; now, if it is not said. For `user` only.
    #[schema(minimum = 0, maximum = 253_402_300_799_u64)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub issued_before: Option<u64>,
    /// Unix seconds at which the last such token has ended, after which this may be forgotten. If it is not said: in 30
    /// days, or 20 years where tokens need not expire.
    #[schema(minimum = 0, maximum = 253_402_300_799_u64)]
    #[serde(default, deserialize_with = "whole_or_none")]
    pub expires: Option<u64>,
}

/// `{"user":"u7","issued_before":1767225600,"expires":1769817600}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Revoked {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Unix seconds.
    pub issued_before: u64,
    /// Unix seconds.
    pub expires: u64,
}

/// Takes tokens back, on all nodes, and ends the connections that used them
///
/// Nobody can undo it: a revoked token stays so until it has expired.
#[utoipa::path(post, path = "/revocations", operation_id = "revoke", tag = "users",
    request_body = Revoke,
    responses(
        (status = 200, description = "Kept, and all nodes are told", body = Revoked),
        (status = "4XX", description = "The request is not good, or not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now, or not known to be done", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["revoke"])))]
pub async fn revoke(
    State(node): State<Arc<Node>>,
    caller: Caller,
    Json(revoke): Json<Revoke>,
) -> Result<Answer<Revoked>, Problem> {
    take_back(&node, &caller, revoke).await.map(Answer)
}

/// Takes tokens back.
///
/// # Errors
/// The request is not good or not allowed, or the backplane did not take it.
pub async fn take_back(node: &Node, caller: &Caller, revoke: Revoke) -> Result<Revoked, Problem> {
    caller.needs(Scope::Revoke)?;
    let subject = subject(&revoke)?;
    caller.about(&match &subject {
        Subject::User(id) => format!("user {id}"),
        Subject::Session(id) => format!("session {id}"),
        Subject::Token(id) => format!("jti {id}"),
    });
    let revocation = revocation(&revoke, subject, auth::now(), node.config.auth.require_expiry)?;
    let (issued_before, expires) = (revocation.issued_before, revocation.forget_after);
    let told = node.warden.tell(Control::Revoke(revocation)).await;
    told.map_err(speak::failed)?;
    Ok(Revoked {
        user: revoke.user,
        session: revoke.session,
        jti: revoke.jti,
        issued_before,
        expires,
    })
}

fn subject(revoke: &Revoke) -> Result<Subject, Problem> {
    let (subject, id) = match (&revoke.user, &revoke.session, &revoke.jti) {
        (Some(id), None, None) => (Subject::User(id.as_str().into()), id),
        (None, Some(id), None) => (Subject::Session(id.as_str().into()), id),
        (None, None, Some(id)) => (Subject::Token(id.as_str().into()), id),
        _ => {
            return Err(Problem::bad_request(
                "a revocation is about exactly one of `user`, `session` and `jti`",
                "send one revocation for each",
            ));
        }
    };
    if !(1..=USER_ID_BYTES_MAX).contains(&id.len()) || id.contains(char::is_control) {
        return Err(Problem::bad_request(
            "an id has 1 to 256 bytes and no control characters",
            "send the id alone: of a token its `jti`, never the token",
        ));
    }
    Ok(subject)
}

fn revocation(revoke: &Revoke, subject: Subject, now: u64, require_expiry: bool) -> Result<Revocation, Problem> {
    let issued_before = revoke.issued_before.unwrap_or(now);
    if issued_before.max(revoke.expires.unwrap_or(0)) > TIME_MAX {
        return Err(Problem::bad_request(
            "`issued_before` and `expires` are seconds since the Unix epoch",
            "milliseconds? divide by 1000",
        ));
    }
    // A moment in the future is of no use if it is forgotten before.
    let kept = auth::revocations::kept(require_expiry).as_secs();
    let expires = revoke.expires.unwrap_or(now.max(issued_before).saturating_add(kept));
    if expires <= now {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "over",
            "`expires` is over: no such token is good any more",
            "leave it out, or say when the last such token ends",
        ));
    }
    Ok(Revocation {
        subject,
        issued_before,
        forget_after: expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_225_600;

    fn made(revoke: &Revoke) -> Option<(Subject, u64, u64)> {
        let subject = subject(revoke).ok()?;
        let made = revocation(revoke, subject, NOW, true).ok()?;
        Some((made.subject, made.issued_before, made.forget_after))
    }

    #[test]
    fn it_is_about_one_and_about_now_unless_said_otherwise() {
        let ann = || Revoke {
            user: Some("ann".to_owned()),
            ..Revoke::default()
        };
        let user = Subject::User("ann".into());
        let kept = auth::revocations::kept(true).as_secs();
        assert_eq!(made(&ann()), Some((user.clone(), NOW, NOW + kept)));
        let later = Revoke {
            issued_before: Some(NOW + 10),
            ..ann()
        };
        assert_eq!(made(&later), Some((user.clone(), NOW + 10, NOW + 10 + kept)));
        let short = Revoke {
            expires: Some(NOW + 5),
            ..ann()
        };
        assert_eq!(made(&short), Some((user, NOW, NOW + 5)));
        let two = Revoke {
            jti: Some("t".to_owned()),
            ..ann()
        };
        let over = Revoke {
            expires: Some(NOW),
            ..ann()
        };
        let milliseconds = Revoke {
            issued_before: Some(NOW * 1_000),
            ..ann()
        };
        let nobody = Revoke {
            user: Some(String::new()),
            ..Revoke::default()
        };
        for bad in [Revoke::default(), two, over, milliseconds, nobody] {
            assert_eq!(made(&bad), None, "{bad:?}");
        }
    }
}
