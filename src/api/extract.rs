//! Bodies, paths and queries, read as axum does, but refused with a [`Problem`].

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use http_body::Body as _;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A JSON body, or none at all.
#[derive(Debug)]
pub struct OptionalJson<T>(pub Option<T>);

/// The parameters in the path, percent-decoded.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The parameters after the `?`.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(unread(&rejection)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // The door has read the body whole: its length is known.
        if request.body().size_hint().exact() == Some(0) {
            return Ok(Self(None));
        }
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(Some(value)))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(value) = read.map_err(|rejection: PathRejection| {
            Problem::bad_request(
                rejection.body_text(),
                "write names percent-encoded: team%2F42 for team/42",
            )
        })?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(value) = read.map_err(|rejection: QueryRejection| {
            Problem::bad_request(
                rejection.body_text(),
                "/api/v1/openapi.json has the parameters of each operation",
            )
        })?;
        Ok(Self(value))
    }
}

/// What serde says names the field and what was expected there.
fn unread(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "the body is not said to be JSON",
            "send Content-Type: application/json",
        ),
        JsonRejection::JsonSyntaxError(error) => {
            Problem::bad_request(error.body_text(), "send JSON, in UTF-8, without a byte order mark")
        }
        JsonRejection::JsonDataError(error) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_body",
            error.body_text(),
            "/api/v1/openapi.json has the shape of each body",
        ),
        other => Problem::bad_request(other.body_text(), "send the body whole"),
    }
}
