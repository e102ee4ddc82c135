use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Version};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use secrecy::SecretString;
use tokio::sync::mpsc;

use super::*;
use crate::telemetry::metrics::SpanFate;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn start(endpoint: &str, sample_ratio: f64) -> Traces {
    let config = config::Traces {
        endpoint: Some(endpoint.to_owned()),
        sample_ratio,
        headers: vec![("x-key".to_owned(), SecretString::from("50%25 secret"))],
    };
    Traces::start(&config, &Service::new("1.2.3")).unwrap()
}

/// A collector that keeps what it is sent.
struct Sink {
    endpoint: String,
    received: mpsc::Receiver<(HeaderMap, ExportTraceServiceRequest)>,
}

impl Sink {
    async fn start() -> Self {
        let (sender, received) = mpsc::channel(64);
        let routes = Router::new().route(
            "/v1/traces",
            post(move |headers: HeaderMap, body: Bytes| async move {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                sender.send((headers, request)).await.unwrap();
            }),
        );
        let listen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listen.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "the collector ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listen, routes).await });
        Self { endpoint, received }
    }

    /// Everything sent until `traces` was shut down, by the name of the span.
    async fn spans(mut self, traces: Traces) -> HashMap<String, Span> {
        let down = move || traces.shutdown(Duration::from_secs(10));
        tokio::task::spawn_blocking(down).await.unwrap();
        let mut spans = HashMap::new();
        while let Ok((headers, request)) = self.received.try_recv() {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            assert_eq!(headers["x-key"], "50%25 secret");
            for resource in request.resource_spans {
                let about = strings(&resource.resource.unwrap().attributes);
                assert_eq!(about["service.name"], "conclave");
                assert_eq!(about["service.version"], "1.2.3");
                assert_eq!(about["service.instance.id"].len(), 36);
                let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(sent.map(|span| (span.name.clone(), span)));
            }
        }
        spans
    }
}

fn strings(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> HashMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|attribute| {
            (
                attribute.key.clone(),
                text(attribute.value.clone().unwrap().value.unwrap()),
            )
        })
        .collect()
}

fn info() -> UpgradeInfo {
    UpgradeInfo {
        method: Method::GET,
        route: "/ws",
        http: Version::HTTP_11,
        tls: Some("1.3"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_reaches_the_collector() {
    let sink = Sink::start().await;
    let traces = start(&sink.endpoint, 1.0);
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", traceparent("01").parse().unwrap());
    headers.insert("tracestate", "vendor=1".parse().unwrap());
    headers.insert("authorization", "Bearer canary".parse().unwrap());

    let upgrade = traces.upgrade(&headers, info());
    upgrade.set_result(101, "admitted");
    let session = upgrade.context();
    drop(upgrade);
    traces.session_started(session.as_ref());
    let mut publish = traces.publish(session.as_ref(), None).unwrap();
    publish.kept(7, 120);
    let published = publish.context();
    drop(publish);
    let across = TraceContext::parse(&published.unwrap().to_string());
    assert_eq!(across, published);
    let mut fan_out = traces.fan_out(across.as_ref(), 1, 40).unwrap();
    fan_out.delivered(39);
    drop(fan_out);
    traces.session_ended(session.as_ref(), 1012, "restart", Duration::from_secs(3));
    let counts = traces.counts().unwrap();

    let spans = sink.spans(traces).await;
    assert_eq!(spans.len(), 5);
    assert_eq!(counts.of(SpanFate::Exported).value(), 5);

    let upgrade = &spans["GET /ws"];
    assert_eq!(upgrade.kind, SpanKind::Server as i32);
    assert_eq!(
        (hex(&upgrade.trace_id), hex(&upgrade.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(upgrade.trace_state, "vendor=1");
    let about = strings(&upgrade.attributes);
    assert_eq!(about["http.response.status_code"], "101");
    assert_eq!(about["tls.protocol.version"], "1.3");
    assert_eq!(about["network.protocol.version"], "1.1");
    assert!(!format!("{spans:?}").contains("canary"));

    let linked = |name: &str, to: &Span| {
        let span = &spans[name];
        assert!(span.parent_span_id.is_empty(), "{name} is a root");
        assert_ne!(span.trace_id, to.trace_id, "{name}");
        assert_eq!(span.links[0].span_id, to.span_id, "{name}");
        strings(&span.attributes)
    };
    linked("websocket session start", upgrade);
    let end = linked("websocket session end", upgrade);
    assert_eq!(
        (&*end["conclave.close.code"], &*end["conclave.close.reason"]),
        ("1012", "restart")
    );
    assert_eq!(end["conclave.session.duration_s"], "3");
    let publish = linked("publish", upgrade);
    assert_eq!(publish["conclave.seq"], "7");
    assert_eq!(spans["publish"].kind, SpanKind::Producer as i32);
    let fan_out = linked("fan-out", &spans["publish"]);
    assert_eq!(
        (&*fan_out["conclave.members"], &*fan_out["conclave.delivered"]),
        ("40", "39")
    );
    assert_eq!(spans["fan-out"].kind, SpanKind::Consumer as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_decision_is_followed_and_an_invalid_one_ignored() {
    let sink = Sink::start().await;
    let traces = start(&sink.endpoint, 0.0);
    assert!(traces.publish(None, None).is_none());
    assert!(traces.publish(None, Some(&traceparent("00"))).is_none());
    for bad in [
        "",
        "00",
        &format!("00-{}-{PARENT}-01", "0".repeat(32)),
        &traceparent("zz"),
        &traceparent("01").replace('-', "_"),
        &"0".repeat(10_000),
    ] {
        assert!(traces.publish(None, Some(bad)).is_none(), "{bad}");
    }
    let publish = traces.publish(None, Some(&traceparent("01"))).unwrap();
    assert!(
        publish
            .context()
            .unwrap()
            .to_string()
            .starts_with(&format!("00-{TRACE}-"))
    );
    drop(publish);

    let mut headers = HeaderMap::new();
    headers.insert("traceparent", traceparent("00").parse().unwrap());
    let unsampled = traces.upgrade(&headers, info()).context().unwrap();
    assert_eq!(
        unsampled.to_string(),
        traceparent("00"),
        "log lines keep the caller's ids"
    );
    assert!(traces.fan_out(Some(&unsampled), 0, 1).is_none());
    traces.session_started(Some(&unsampled));
    headers.append("traceparent", traceparent("01").parse().unwrap());
    assert!(
        traces.upgrade(&headers, info()).context().is_none(),
        "two parents are none"
    );

    let spans = sink.spans(traces).await;
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["publish"]);
    assert_eq!(hex(&spans["publish"].parent_span_id), PARENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_collector_delays_nothing_and_what_is_lost_is_counted() {
    // Accepts and never answers: worse than a closed port.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let traces = start(&format!("http://{}", silent.local_addr().unwrap()), 1.0);
    let started = Instant::now();
    for _ in 0..5_000 {
        drop(traces.publish(None, None));
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let counts = traces.counts().unwrap();
    assert_eq!(counts.of(SpanFate::Dropped).value(), 5_000 - 2_048);
    let stopping = Instant::now();
    tokio::task::spawn_blocking(move || traces.shutdown(Duration::from_millis(300)))
        .await
        .unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(2), "{:?}", stopping.elapsed());
}

#[test]
fn a_bad_header_is_refused_and_its_value_not_shown() {
    let config = config::Traces {
        endpoint: Some("http://127.0.0.1:4318".to_owned()),
        sample_ratio: 1.0,
        headers: vec![("x-key".to_owned(), SecretString::from("canary\n"))],
    };
    let error = Traces::start(&config, &Service::new("1")).err().unwrap();
    let shown = format!("{error:?}");
    assert!(shown.contains("x-key") && !shown.contains("canary"), "{shown}");
}

#[test]
fn off_is_off() {
    let traces = Traces::off();
    assert!(traces.publish(None, Some(&traceparent("01"))).is_none());
    assert!(traces.upgrade(&HeaderMap::new(), info()).context().is_none());
    assert!(traces.counts().is_none() && !traces.is_on());
    traces.shutdown(Duration::from_secs(1));
}

#[test]
fn a_bad_endpoint_is_refused_and_not_shown() {
    for endpoint in [
        "canary",
        "ftp://canary",
        "http://a:canary@host",
        "http://host/?key=canary",
    ] {
        let config = config::Traces {
            endpoint: Some(endpoint.to_owned()),
            sample_ratio: 1.0,
            headers: Vec::new(),
        };
        let error = Traces::start(&config, &Service::new("1")).err().unwrap();
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}
