//! The description of the API, OpenAPI 3.1, at `/api/v1/openapi.json`: made from the handlers, and served without a key,
//! since it says nothing of this node or of who may call it.
//!
//! What the door does to all of them (keys, limits, problems, `Idempotency-Key`) is added here, once.

use axum::Extension;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, ServerBuilder};

use super::problem;

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

/// The whole text, rendered once.
#[derive(Debug, Clone)]
pub struct Document(Bytes);

impl Document {
    /// As the handlers describe themselves, and what is true of all of them.
    pub fn new(described: &OpenApi) -> Self {
        let text = serde_json::to_value(described).map(completed);
        Self(text.map_or_else(|_| Bytes::new(), |text| Bytes::from(text.to_string())))
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "description",
    responses((status = 200, description = "OpenAPI 3.1", body = Value)),
    security(()))]
pub async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([kind], text).into_response()
}

/// Who may be told which problem by the door, whatever the operation is.
const OF_ALL: &[(u16, &str)] = &[
    (400, "The request makes no sense"),
    (401, "No key or token, or not a good one"),
    (
        403,
        "The key or token has not the scope, or is not for this room; or a web page asks",
    ),
    (
        429,
        "Too many requests of this key or token, or too many wrong ones from this address",
    ),
    (500, "A fault of the server: it may have been done or not"),
    (
        503,
        "Not now: the server or its backplane has too much to do, or cannot be reached",
    ),
];
/// Of those that name a room or a user in their path.
const OF_PATHS: &[(u16, &str)] = &[(404, "No room or user can be called so, or there is nothing kept of it")];
/// Of those with a body.
const OF_BODIES: &[(u16, &str)] = &[
    (408, "The body took too long"),
    (413, "The body, or the content in it, is too long"),
    (415, "The body is not said to be JSON"),
    (
        422,
        "The body has not the shape it should have, or the Idempotency-Key came with another request",
    ),
];
/// Of those that take an `Idempotency-Key`.
const OF_KEYS: &[(u16, &str)] = &[(
    409,
    "A request with this Idempotency-Key is being served, or it is too late for this one",
)];

/// Not a parameter: what sends random requests would send the same key with others, which is wrong in a way that no
/// schema can say.
const IDEMPOTENCY: &str = "Takes an `Idempotency-Key` header, one word of 1 to 255 visible ASCII characters: the same \
    request with the same key is done once, and answered as the first time, for `api.idempotency`.";

/// Problems that say when to come again.
const WITH_RETRY_AFTER: &[u16] = &[409, 429, 503];

fn completed(mut document: Value) -> Value {
    let problem = serde_json::to_value(problem::Body::schema()).unwrap_or_default();
    document["components"]["schemas"]["Problem"] = problem;
    document["components"]["securitySchemes"]["key"] = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`ck_…`), or a token of the application with a scope, where `api.jwt` is set.",
    });
    for (status, what) in [OF_ALL, OF_PATHS, OF_BODIES, OF_KEYS].concat() {
        document["components"]["responses"][status.to_string()] = response(status, what);
    }
    exactly_one(
        &mut document["components"]["schemas"]["Revoke"],
        &["user", "session", "jti"],
    );
    loosen(&mut document["components"]["schemas"]["Operation"]["properties"]);
    for (path, operations) in entries(&mut document["paths"]) {
        let names_something = path.contains('{');
        for (method, operation) in entries(operations) {
            complete(method, names_something, operation);
        }
    }
    document
}

/// One operation. What it says itself of a status stays.
fn complete(method: &str, names_something: bool, operation: &mut Value) {
    let is_open = operation["operationId"] == "openapi";
    let has_body = operation["requestBody"].is_object();
    let mut of_this = if is_open {
        OF_ALL[2..3].to_vec()
    } else {
        OF_ALL.to_vec()
    };
    if has_body {
        of_this.extend_from_slice(OF_BODIES);
    }
    if names_something {
        of_this.extend_from_slice(OF_PATHS);
    }
    if method == "post" {
        of_this.extend_from_slice(OF_KEYS);
        let before = operation["description"].as_str().unwrap_or_default().trim_end();
        operation["description"] = json!(format!("{before}\n\n{IDEMPOTENCY}").trim_start());
        operation["responses"]["200"]["headers"]["Idempotency-Replayed"] = json!({
            "description": "`true`: this is the answer of the first time.",
            "schema": {"type": "string", "enum": ["true"]},
        });
    }
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    // Each status is said one by one.
    responses.retain(|status, _| !status.ends_with("XX"));
    for (status, _) in of_this {
        let reference = json!({"$ref": format!("#/components/responses/{status}")});
        responses.entry(status.to_string()).or_insert(reference);
    }
}

fn response(status: u16, what: &str) -> Value {
    let mut response = json!({
        "description": what,
        "content": {problem::MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    if WITH_RETRY_AFTER.contains(&status) {
        response["headers"]["Retry-After"] = json!({
            "description": "When to come again, in seconds.",
            "schema": {"type": "integer", "minimum": 1},
        });
    }
    if matches!(status, 401 | 403) {
        response["headers"]["WWW-Authenticate"] = json!({
            "description": "As RFC 6750 has it.",
            "schema": {"type": "string"},
        });
    }
    response
}

/// Of fields that exclude each other one has to be there: the object becomes one of several.
fn exactly_one(schema: &mut Value, names: &[&str]) {
    let variants = names.iter().map(|chosen| {
        let mut variant = schema.clone();
        for name in names.iter().filter(|name| *name != chosen) {
            variant["properties"][*name] = json!({"type": "null"});
        }
        variant["properties"][*chosen]["type"] = json!("string");
        variant["required"] = json!([chosen]);
        variant["title"] = json!(format!("Revoke {chosen}"));
        variant
    });
    *schema = json!({"oneOf": variants.collect::<Vec<_>>()});
}

/// A part of a batch may be wrong without the batch being so: what its own route would refuse is told in its result.
fn loosen(properties: &mut Value) {
    for (_, property) in entries(properties) {
        loosen_one(property);
    }
    let named = json!({
        "type": "object",
        "properties": {"id": {"type": "string"}, "name": {"type": ["string", "null"]}, "info": {"type": ["object", "null"]}},
        "required": ["id"],
        "additionalProperties": false,
    });
    properties["from"] = json!({"oneOf": [{"type": "null"}, {"type": "string"}, named]});
}

fn loosen_one(schema: &mut Value) {
    for variant in schema["oneOf"].as_array_mut().into_iter().flatten() {
        loosen_one(variant);
    }
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if schema.get("oneOf").is_some_and(Value::is_null) {
        schema.remove("oneOf");
    }
    for bound in ["minLength", "maxLength", "pattern", "format"] {
        schema.remove(bound);
    }
    let is_integer = schema
        .get("type")
        .is_some_and(|kind| kind == "integer" || kind[0] == "integer");
    if is_integer {
        schema.insert("minimum".to_owned(), json!(0));
        schema.insert("maximum".to_owned(), json!(u64::MAX));
    }
}

fn entries(object: &mut Value) -> impl Iterator<Item = (&str, &mut Value)> {
    let entries = object.as_object_mut().into_iter().flat_map(Map::iter_mut);
    entries.map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests;
