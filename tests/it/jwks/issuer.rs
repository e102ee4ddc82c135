//! An issuer of tokens with an authority of its own, that serves its keys as the test says and counts who asks.

use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::harness::backend::{Asked, Backend};
use crate::harness::tls::Certificate;
use crate::harness::token::{self, encode};
use crate::harness::{self, Builder, Node};

/// A key pair and its name.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pair: Arc<EcdsaKeyPair>,
}

impl Key {
    pub fn new(kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: Arc::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        }
    }

    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid,
               "x": encode(&point[1..33]), "y": encode(&point[33..])})
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "ES256", "kid": self.kid}), claims)
    }

    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }
}

pub struct Issuer {
    pub name: String,
    pub backend: Backend,
    pub certificate: Certificate,
    keys: Arc<Mutex<Vec<Value>>>,
}

impl Issuer {
    /// Serves `keys` over TLS, with an `ETag`.
    pub async fn start(name: &str, keys: &[&Key]) -> Self {
        let certificate = Certificate::new();
        let issuer = Self {
            name: name.to_owned(),
            backend: Backend::start_tls(&certificate).await,
            certificate,
            keys: Arc::default(),
        };
        issuer.serves(keys);
        issuer.recovers();
        issuer
    }

    /// From now on these are its keys.
    pub fn serves(&self, keys: &[&Key]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.jwk()).collect();
    }

    /// Answers as it should.
    pub fn recovers(&self) {
        let keys = Arc::clone(&self.keys);
        self.backend.answers(move |asked| {
            let set = json!({"keys": *keys.lock().unwrap()}).to_string();
            std::future::ready(served(&asked, set))
        });
    }

    /// Answers whatever comes with this.
    pub fn says(&self, answer: impl Fn(Asked) -> Response<Body> + Send + Sync + 'static) {
        self.backend.answers(move |asked| std::future::ready(answer(asked)));
    }

    pub fn fails(&self) {
        self.says(|_| status(500));
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.backend.asked().len()
    }

    /// Waits until it has answered a question that is asked after now.
    pub async fn asked_anew(&self) {
        // The next may be under way already, the one after it is not.
        self.backend.asked_times(self.asked() + 2).await;
    }

    /// What a good token of `sub` says.
    pub fn claims(&self, sub: &str) -> Value {
        let mut claims = token::claims(sub);
        claims["iss"] = json!(self.name);
        claims
    }

    /// The lines of its `[[auth.keys]]`.
    pub fn entry(&self) -> String {
        format!(
            "jwks_url = \"{}/keys\"\njwks_ca_file = \"{}.pem\"\nissuer = \"{}\"",
            self.backend.url,
            self.file(),
            self.name
        )
    }

    /// Adds it to a node, with `more` lines.
    pub fn on(&self, node: Builder, more: &str) -> Builder {
        node.file(&format!("{}.pem", self.file()), self.certificate.pem.clone())
            .key(&format!("{}\n{more}", self.entry()))
    }

    /// A node that knows only this issuer, and asks it every second.
    pub fn node(&self) -> Builder {
        let node = harness::node()
            .file(&format!("{}.pem", self.file()), self.certificate.pem.clone())
            .only_key(&self.entry());
        quick(node)
    }

    fn file(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }

    /// Scrapes until so many readings have come to `result`.
    pub async fn fetched(&self, node: &Node, result: &str, least: f64) {
        let labels = [("issuer", self.name.as_str()), ("result", result)];
        node.metric_reaches("conclave_jwks_fetches_total", &labels, least).await;
    }

    /// How many readings have come to `result`.
    pub async fn count(&self, node: &Node, result: &str) -> f64 {
        let labels = [("issuer", self.name.as_str()), ("result", result)];
        node.metrics().await.sum("conclave_jwks_fetches_total", &labels)
    }

    /// One of its gauges on the node.
    pub async fn shown(&self, node: &Node, gauge: &str) -> f64 {
        node.metrics().await.sum(gauge, &[("issuer", &self.name)])
    }
}

/// The shortest times that there are, so that tests need not wait long.
pub fn quick(node: Builder) -> Builder {
    node.set("auth.jwks_refresh", "1s")
        .set("auth.jwks_minimum_gap", "100ms")
        .set("auth.jwks_grace", "2s")
}

fn served(asked: &Asked, set: String) -> Response<Body> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, set.as_bytes());
    let etag = format!("\"{}\"", encode(digest));
    let answer = Response::builder().header(header::ETAG, &etag);
    if asked.header("if-none-match") == etag {
        return answer.status(304).body(Body::empty()).unwrap();
    }
    answer
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "max-age=86400")
        .body(Body::from(set))
        .unwrap()
}

pub fn status(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Comes in with this token, at once or after a while.
pub async fn comes_in(node: &Node, token: &str) {
    node.socket()
        .query_token(token)
        .open()
        .await
        .welcomed()
        .await
        .close(1000)
        .await;
}

/// Is upgraded and told this.
pub async fn is_refused(node: &Node, token: &str, code: u16, word: &str) {
    let mut client = node.socket().query_token(token).open().await;
    client.expect_close(code, word).await;
}
