//! A collector: OTLP over HTTP, as the standard describes it, on a port of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Keeps what it is sent. A node sends its last spans before it ends, so a test reads after that.
pub struct Collector {
    pub endpoint: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bodies);
        let take = move |body: Bytes| async move { kept.lock().unwrap().push(body) };
        let routes = Router::new().route("/v1/traces", post(take));
        let listen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listen.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listen, routes).await });
        Self { endpoint, bodies }
    }

    pub fn spans(&self) -> Vec<Span> {
        let requests = self.bodies();
        let requests = requests
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.clone()).expect("OTLP"));
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    /// Every byte that came.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.bodies.lock().unwrap().clone()
    }
}

/// The attributes of a span as text.
pub fn about(span: &Span) -> HashMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let each = span.attributes.iter().map(|attribute| {
        let value = attribute.value.clone().and_then(|value| value.value);
        (attribute.key.clone(), value.map(text).unwrap_or_default())
    });
    each.collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
