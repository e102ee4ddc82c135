//! What a refused sign-in is told.

use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::{HeaderValue, StatusCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::no_store;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    ForeignOrigin,
    RateLimited(Duration),
    NotJsonType,
    TooLarge,
    TooSlow,
    BadJson,
    BadName(&'static str),
    SignedOut,
    /// No randomness or no guests' key: our own fault.
    Internal,
}

impl Refused {
    /// Status, code for programs, sentence for people.
    fn answer(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "only this site's own pages may do this",
            ),
            Self::RateLimited(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many sign-ins from this address",
            ),
            Self::NotJsonType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "send Content-Type: application/json",
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is over 1 KiB"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took over 10 s"),
            Self::BadJson => (StatusCode::BAD_REQUEST, "bad_json", "send {\"name\":\"…\"}"),
            Self::BadName(what) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_name", what),
            Self::SignedOut => (StatusCode::UNAUTHORIZED, "signed_out", "no good session cookie"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "signing in failed"),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message) = self.answer();
        let mut response = (status, [no_store()], Json(json!({"error": code, "message": message}))).into_response();
        if let Self::RateLimited(wait) = self {
            // Rounded up: who comes back at that second gets in.
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response
    }
}
