//! An application that is asked and told: HTTP on a port of its own, plain or TLS (then HTTP/2 too), that answers as the
//! test says and keeps every request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::tls::Certificate;
use super::within;

/// The secret that hooks of the tests are signed with.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Behaviour = Arc<dyn Fn(Asked) -> Answering + Send + Sync>;

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body as JSON.
    pub event: Value,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn header_bytes(&self, name: &str) -> &[u8] {
        self.headers.get(name).map_or(b"", |value| value.as_bytes())
    }
}

pub struct Backend {
    /// Without a path.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    asked: Mutex<Vec<Asked>>,
    count: watch::Sender<usize>,
}

impl Backend {
    /// Plain HTTP; allows everything until told otherwise.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// HTTPS with this certificate, HTTP/2 where the client can.
    pub async fn start_tls(certificate: &Certificate) -> Self {
        let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("our own PEM");
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der()], key)
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(|_| Box::pin(async { allow() }))),
            asked: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let served = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&served), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, shared).await;
                            }
                        }
                        None => connection(stream, shared).await,
                    }
                });
            }
        });
        Self { url, shared }
    }

    /// From now on requests are answered so.
    pub fn answers<F, A>(&self, behaviour: F)
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        *self.shared.behaviour.lock().unwrap() = Arc::new(move |asked| Box::pin(behaviour(asked)));
    }

    /// From now on every request is answered with this JSON.
    pub fn says(&self, answer: Value) {
        self.answers(move |_| std::future::ready(json_answer(&answer)));
    }

    /// From now on no request is answered.
    pub fn hangs(&self) {
        self.answers(|_| std::future::pending());
    }

    /// Every request so far, as it came in.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits for so many requests in all, and gives back those that there are then.
    pub async fn asked_times(&self, times: usize) -> Vec<Asked> {
        let mut count = self.shared.count.subscribe();
        let reached = count.wait_for(|count| *count >= times);
        within(&format!("{times} requests to the backend"), reached)
            .await
            .unwrap();
        self.asked()
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    // A client that goes away is no fault of a test.
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(served);
}

async fn answer(request: Request<hyper::body::Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(Body::new(body), 16 << 20).await else {
        return status(400);
    };
    let asked = Asked {
        path: head.uri.path().to_owned(),
        version: head.version,
        headers: head.headers,
        event: serde_json::from_slice(&body).unwrap_or(Value::Null),
        body,
    };
    shared.asked.lock().unwrap().push(asked.clone());
    shared.count.send_modify(|count| *count += 1);
    let behaviour = Arc::clone(&shared.behaviour.lock().unwrap());
    behaviour(asked).await
}

/// `{"allow":true}`
pub fn allow() -> Response<Body> {
    json_answer(&json!({"allow": true}))
}

pub fn json_answer(answer: &Value) -> Response<Body> {
    body(answer.to_string())
}

/// 200 with these bytes.
pub fn body(body: impl Into<Body>) -> Response<Body> {
    Response::new(body.into())
}

/// A status without a body.
pub fn status(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// A body that never ends: a piece of JSON, again and again, one each `pause`.
pub fn endless(pause: Duration) -> Response<Body> {
    pieces(Bytes::from_static(b"{\"allow\":true}    "), pause)
}

/// A body that never ends, and is soon larger than anybody wants.
pub fn flood() -> Response<Body> {
    pieces(Bytes::from(vec![b' '; 16 << 10]), Duration::from_millis(1))
}

fn pieces(piece: Bytes, pause: Duration) -> Response<Body> {
    let pieces = futures_util::stream::unfold(piece, move |piece| async move {
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(piece.clone()), piece))
    });
    body(Body::from_stream(pieces))
}
