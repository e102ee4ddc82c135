//! What every request of one connection carries: who is at the other end, and which shard serves it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use tower::Service;

use crate::config::Networks;
use crate::net::idle::{InService, Serving};
use crate::net::{PeerAddress, forwarded};
use crate::shard::Shard;

/// The other end of an HTTP connection, as a request extension.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: PeerAddress,
    /// `1.2` or `1.3`; none without TLS.
    pub tls_version: Option<&'static str>,
    pub shard: Arc<Shard>,
    pub in_service: InService,
    /// It is a proxy's connection, whose requests say whose they are.
    pub forwards: Option<Arc<Networks>>,
}

impl Peer {
    /// The other end of this request.
    fn of(&self, headers: &HeaderMap) -> Self {
        let mut peer = self.clone();
        if let Some(trusted) = &self.forwards {
            peer.address.0 = forwarded::client(headers, self.address.0, trusted);
        }
        peer
    }
}

/// The router of one connection.
#[derive(Clone)]
pub struct HttpService<S> {
    inner: S,
    peer: Peer,
}

impl<S> HttpService<S> {
    #[must_use]
    pub fn new(inner: S, peer: Peer) -> Self {
        Self { inner, peer }
    }
}

impl<S> Service<http::Request<Incoming>> for HttpService<S>
where
    S: Service<Request, Response = Response, Error = std::convert::Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Response, std::convert::Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let serving = self.peer.in_service.begin();
        let mut request = request.map(Body::new);
        let peer = self.peer.of(request.headers());
        request.extensions_mut().insert(peer.address);
        request.extensions_mut().insert(peer);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(if answer.body().is_end_stream() {
                answer
            } else {
                answer.map(|body| {
                    Body::new(Served {
                        body,
                        _serving: serving,
                    })
                })
            })
        })
    }
}

/// A response body that is still on its way: the connection is not idle until it has left.
struct Served {
    body: Body,
    _serving: Serving,
}

impl http_body::Body for Served {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
