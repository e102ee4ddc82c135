//! Answers of the API that are no success: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What was wrong, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// For programs: one word per problem.
    pub code: &'static str,
    /// For a person.
    pub detail: String,
    pub fix: &'static str,
}

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, fix: &'static str) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            fix,
        }
    }

    /// The request makes no sense.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>, fix: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail, fix)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "fix": self.fix,
        });
        let kind = (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let mut response = (self.status, [kind], body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"conclave\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
