//! The operators' listener from outside: who is let in, what is answered, what it can do.

mod guard;
mod views;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::request::{read_body, read_head};
use crate::harness::{self, Answer, Builder, Node, within};

/// What no answer and no log line may say.
const TOKEN: &str = "canary7Kq-0123456789abcdef0123456789abcdef";

/// A node with a page for whoever has [`TOKEN`], who is called ann.
fn node() -> Builder {
    harness::node()
        .file("tokens", format!("# operators\nann {TOKEN}\n"))
        .set("admin.token_file", "tokens")
}

/// A request to the admin listener.
struct Ask<'a> {
    node: &'a Node,
    method: &'a str,
    path: &'a str,
    headers: Vec<String>,
    body: String,
}

/// Without a `Host` and without a token.
fn bare<'a>(node: &'a Node, method: &'a str, path: &'a str) -> Ask<'a> {
    Ask {
        node,
        method,
        path,
        headers: Vec::new(),
        body: String::new(),
    }
}

/// As a program does it that may: host, token and, for changes, the header.
fn ask<'a>(node: &'a Node, method: &'a str, path: &'a str) -> Ask<'a> {
    let ask = bare(node, method, path).with("Host: localhost").with(&bearer(TOKEN));
    if method == "GET" {
        ask
    } else {
        ask.with("conclave-admin: 1")
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

impl Ask<'_> {
    fn with(mut self, header: &str) -> Self {
        self.headers.push(header.to_owned());
        self
    }

    fn json(self, body: Value) -> Self {
        self.body("application/json", &body.to_string())
    }

    fn body(mut self, kind: &str, body: &str) -> Self {
        self.body = body.to_owned();
        self.with(&format!("Content-Type: {kind}"))
    }

    async fn answer(self) -> Answer {
        let mut stream = within("the admin listener", TcpStream::connect(self.node.admin))
            .await
            .expect("it listens");
        let mut request = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for header in &self.headers {
            request.push_str(&format!("{header}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body));
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut answer, mut body) = read_head(&mut stream).await;
        read_body(&mut answer, &mut stream, &mut body).await;
        assert!(!format!("{answer:?}").contains("canary7Kq"), "{answer:?}");
        answer
    }

    async fn status(self) -> u16 {
        self.answer().await.status
    }

    /// The JSON of an answer that must be good.
    async fn good(self) -> Value {
        let answer = self.answer().await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

/// Waits for the audit line of an action with this result.
async fn audited(node: &Node, action: &str, result: &str) -> Value {
    let is_it = |line: &Value| {
        line["target"] == "conclave::audit"
            && line["action"] == action
            && line["result"].as_str().is_some_and(|said| said.starts_with(result))
    };
    node.logged(&format!("an audit line of {action}: {result}"), is_it)
        .await
}
