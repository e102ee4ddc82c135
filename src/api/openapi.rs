//! The description of the API, OpenAPI 3.1, at `/api/v1/openapi.json`: made from the handlers, and served without a key,
//! since it says nothing of this node or of who may call it.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, header};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, ServerBuilder};

/// Its path below [`super::PATH`].
pub const PATH: &str = "/openapi.json";

/// What is true of the whole API.
pub fn base() -> OpenApi {
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Conclave server API")
                .version("1")
                .description(Some(
                    "What an application's backend may ask of a Conclave server, and have it do.",
                ))
                .build(),
        )
        .servers(Some([ServerBuilder::new().url(super::PATH).build()]))
        .build()
}

/// Serves `document`, rendered once.
pub fn routes<S: Clone + Send + Sync + 'static>(document: OpenApi) -> Router<S> {
    let text = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let serve = move || async move {
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        ([kind], text).into_response()
    };
    Router::new().route(PATH, get(serve))
}
