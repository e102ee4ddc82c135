//! What the server API does, seen by clients: on a node alone, and on several.

mod alone;
mod cluster;
mod names;

use serde_json::{Value, json};

use crate::harness::request::{Stream, read_body};
use crate::harness::{self, Builder, Node, token};

/// A node that tokens with a scope may call, as often as they like.
pub fn node() -> Builder {
    harness::node()
        .set("api.jwt", "true")
        .set("api.requests_per_second", "1000000")
        .set("api.requests_burst", "1000000")
}

/// A token of the backend.
fn backend(node: &Node, scopes: &str) -> String {
    let mut claims = token::claims("backend");
    claims["scope"] = json!(scopes);
    node.token_with(&claims)
}

/// Asks with these scopes; status and JSON of the answer.
async fn ask_as(node: &Node, scopes: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut ask = node
        .ask(method, &format!("/api/v1{path}"))
        .header("Connection", "close")
        .bearer(&backend(node, scopes));
    if let Some(body) = body {
        ask = ask.header("Content-Type", "application/json").body(body.to_string());
    }
    let answer = ask.answer().await;
    let kind = answer.header("content-type").unwrap_or_default();
    let expected = if answer.status < 400 {
        "application/json"
    } else {
        "application/problem+json"
    };
    assert_eq!(kind, expected, "{answer:?}");
    let json: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"));
    if answer.status >= 400 {
        assert_eq!(json["status"], answer.status, "{json}");
    }
    if answer.status == 503 {
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    (answer.status, json)
}

pub async fn ask(node: &Node, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    ask_as(node, "conclave:*", method, path, body).await
}

/// A backend that keeps its connection.
pub struct Backend<'a> {
    node: &'a Node,
    token: String,
    stream: Option<Box<dyn Stream>>,
}

impl<'a> Backend<'a> {
    pub fn new(node: &'a Node) -> Self {
        Self {
            node,
            token: backend(node, "conclave:*"),
            stream: None,
        }
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let ask = (self.node)
            .ask("POST", &format!("/api/v1{path}"))
            .bearer(&self.token)
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let (mut answer, mut stream, mut early) = match self.stream.take() {
            Some(stream) => ask.send_on(stream).await,
            None => ask.send().await,
        };
        read_body(&mut answer, &mut stream, &mut early).await;
        self.stream = Some(stream);
        (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
    }
}

pub async fn get(node: &Node, path: &str) -> Value {
    let (status, answer) = ask(node, "GET", path, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

pub async fn post(node: &Node, path: &str, body: Value) -> Value {
    let (status, answer) = ask(node, "POST", path, Some(&body)).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

pub async fn delete(node: &Node, path: &str) -> Value {
    let (status, answer) = ask(node, "DELETE", path, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// The word of the problem that this comes to.
pub async fn refused(node: &Node, method: &str, path: &str, body: Value) -> (u16, String) {
    let body = (!body.is_null()).then_some(&body);
    let (status, answer) = ask(node, method, path, body).await;
    assert!(status >= 400, "{path}: {answer}");
    (status, answer["code"].as_str().expect("a word").to_owned())
}
