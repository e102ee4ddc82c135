//! Answers that are no success: `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Scope;

/// The media type of every answer that is no success.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What was wrong, and what to do about it.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    /// For programs: one word per problem.
    pub code: &'static str,
    /// For a person. Never content, never a key.
    pub detail: String,
    /// For a person: the remedy.
    pub fix: &'static str,
    retry_after: Option<Duration>,
    /// Of `WWW-Authenticate`, after the realm.
    challenge: Option<String>,
}

/// In the extensions of an answer: its `code`, for the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Word(pub &'static str);

/// `{"type":"about:blank","title":"Forbidden","status":403,"code":"scope_missing","detail":"…","fix":"…"}`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem, title = "Problem")]
pub struct Body {
    /// Always `about:blank`: `code` says which problem it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Forbidden")]
    title: &'static str,
    /// As in the status line.
    #[schema(example = 403, minimum = 400, maximum = 599)]
    status: u16,
    /// One word per problem, for programs.
    #[schema(example = "scope_missing")]
    code: &'static str,
    /// What was wrong, for a person.
    detail: String,
    /// What to do about it, for a person.
    fix: &'static str,
}

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, fix: &'static str) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            fix,
            retry_after: None,
            challenge: None,
        }
    }

    /// The request makes no sense: 400.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>, fix: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail, fix)
    }

    /// There is no such thing: 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>, fix: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail, fix)
    }

    /// Not now: 503, to be tried again after that.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl Into<String>, fix: &'static str, after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail, fix).retry_after(after)
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The JSON of the answer, for answers that hold several.
    #[must_use]
    pub fn body(&self) -> Body {
        Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            fix: self.fix,
        }
    }

    pub(super) fn key_missing() -> Self {
        Self::unauthorized(
            "key_missing",
            "this needs a key or a token, in the Authorization header",
            "send \"Authorization: Bearer ck_…\"; \"conclave api-key new\" makes a key",
            "",
        )
    }

    pub(super) fn unauthorized(
        code: &'static str,
        detail: impl Into<String>,
        fix: &'static str,
        challenge: &str,
    ) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, code, detail, fix);
        problem.challenge = Some(challenge.to_owned());
        problem
    }

    pub(super) fn scope_missing(scope: Scope) -> Self {
        let word = scope.as_str();
        let mut problem = Self::new(
            StatusCode::FORBIDDEN,
            "scope_missing",
            format!("this needs the scope {word}, which the key or token does not have"),
            "add the scope to the key's entry in [[api.keys]], or to the token",
        );
        // RFC 6750 section 3.1.
        problem.challenge = Some(format!(", error=\"insufficient_scope\", scope=\"{word}\""));
        problem
    }

    pub(super) fn room_forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "room_forbidden",
            "the key or token is not for this room",
            "add the room to `rooms` of the key's entry in [[api.keys]], or to the token's rooms claim",
        )
    }

    pub(super) fn rate_limited(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "more requests than this key or token may send per second",
            "come again after Retry-After, send several operations as one batch, or raise requests_per_second",
        )
        .retry_after(wait)
    }
}

/// Whole seconds, rounded up: who comes back then is not too early.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        let mut response = (self.status, [kind], body).into_response();
        response.extensions_mut().insert(Word(self.code));
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds(wait));
        }
        if let Some(challenge) = self.challenge {
            let challenge = format!("Bearer realm=\"conclave\"{challenge}");
            if let Ok(value) = HeaderValue::try_from(challenge) {
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_it_is_and_when_to_come_again() {
        let answer = Problem::rate_limited(Duration::from_millis(1_200)).into_response();
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["content-type"], MEDIA_TYPE);
        assert_eq!(answer.headers()["retry-after"], "2");
        assert!(!answer.headers().contains_key("www-authenticate"));
        let answer = Problem::scope_missing(Scope::Kick).into_response();
        assert_eq!(
            answer.headers()["www-authenticate"],
            "Bearer realm=\"conclave\", error=\"insufficient_scope\", scope=\"kick\""
        );
        let answer = Problem::key_missing().into_response();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"conclave\"");
    }
}
