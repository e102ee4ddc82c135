//! What is told to whoever gets no ticket.

use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::{HeaderValue, StatusCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::auth::DeniedWord;

/// When to come back to a node, a backplane or an application that does not answer: seconds.
const UNAVAILABLE_RETRY_S: u64 = 2;

/// Why there is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    ForeignOrigin,
    /// As the close of a socket would say.
    Denied(DeniedWord),
    /// The token was in the query.
    InTheQuery,
    RateLimited(Duration),
    /// Too many refused tokens from this address.
    Throttled,
    Unavailable,
    /// Our own fault.
    Internal,
}

impl Refused {
    /// Status, code for programs, sentence for people.
    fn answer(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "this origin is not on the allow-list",
            ),
            Self::Denied(word @ DeniedWord::CookieOrigin) => (
                StatusCode::FORBIDDEN,
                word.as_str(),
                "a cookie needs an Origin that is ours or listed exactly",
            ),
            Self::Denied(word) => (
                StatusCode::UNAUTHORIZED,
                word.as_str(),
                "no good token or session: send Authorization: Bearer, or a cookie",
            ),
            Self::InTheQuery => (
                StatusCode::BAD_REQUEST,
                "token_in_query",
                "send the token as Authorization: Bearer, or as a cookie",
            ),
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many tickets"),
            Self::Throttled => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many refused tokens from this address",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "no tickets just now; come back after Retry-After",
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "no ticket could be made"),
        }
    }

    /// Seconds after which another attempt may do better, rounded up.
    fn retry_after_s(self) -> Option<u64> {
        match self {
            Self::RateLimited(wait) => Some(wait.as_secs() + 1),
            Self::Throttled => Some(1),
            Self::Unavailable => Some(UNAVAILABLE_RETRY_S),
            _ => None,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message) = self.answer();
        let mut response = (status, Json(json!({"error": code, "message": message}))).into_response();
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
