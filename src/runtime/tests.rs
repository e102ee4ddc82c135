//! A whole node inside a test, for what cannot be provoked from outside.

use std::sync::Arc;

use axum_server::Handle;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::serve::{build, listener, serve};
use crate::auth::keys::install_provider;
use crate::config::{Config, Key, KeySource, default_config};
use crate::net::listener::listen;
use crate::runtime::Node;
use crate::telemetry::traces::Traces;

/// A message that panics where it is dispatched, in tests only.
pub(crate) const A_BUG: &str = "a bug, please";

const SECRET: &str = "a secret of more than thirty-two bytes";

type Client = WebSocketStream<TlsStream<TcpStream>>;

struct Running {
    node: Arc<Node>,
    port: u16,
    key: Key,
    connector: TlsConnector,
    _folder: tempfile::TempDir,
}

/// A node that nobody can reach yet, and the folder that it needs.
pub(crate) fn bare_node(decide: impl FnOnce(&mut Config)) -> (Arc<Node>, tempfile::TempDir) {
    install_provider().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut config = default_config();
    config.tls.certificate = folder.path().join("tls.crt");
    config.tls.key = folder.path().join("tls.key");
    std::fs::write(&config.tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&config.tls.key, made.signing_key.serialize_pem()).unwrap();
    config.auth.keys = vec![Key {
        algorithm: "HS256".to_owned(),
        source: KeySource::Secret(SECRET.into()),
        kid: None,
        issuer: None,
        audience: Vec::new(),
        user_prefix: String::new(),
        set_in: "the test".to_owned(),
    }];
    decide(&mut config);
    (build(config, Traces::off(), 1).unwrap(), folder)
}

impl Running {
    /// Call inside of a runtime that lives as long as the node.
    fn start() -> Self {
        install_provider().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut config = default_config();
        config.tls.certificate = folder.path().join("tls.crt");
        config.tls.key = folder.path().join("tls.key");
        std::fs::write(&config.tls.certificate, made.cert.pem()).unwrap();
        std::fs::write(&config.tls.key, made.signing_key.serialize_pem()).unwrap();
        let key = Key {
            algorithm: "HS256".to_owned(),
            source: KeySource::Secret(SECRET.into()),
            kid: None,
            issuer: None,
            audience: Vec::new(),
            user_prefix: String::new(),
            set_in: "the test".to_owned(),
        };
        config.auth.keys = vec![key.clone()];
        let socket = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap().swap_remove(0);
        let port = socket.local_addr().unwrap().port();
        let node = build(config, Traces::off(), 1).unwrap();
        node.shards[0].start(&node.tasks);
        let listener = listener(&node, socket).unwrap();
        let served = Arc::clone(&node);
        node.tasks.spawn(
            "listener",
            async move { serve(&served, 0, listener, Handle::new()).await },
        );
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            node,
            port,
            key,
            connector: TlsConnector::from(Arc::new(client)),
            _folder: folder,
        }
    }

    /// A user who has joined `lobby`.
    async fn join(&self, user: &str) -> Client {
        let claims = json!({"sub": user, "exp": crate::auth::now() + 60});
        let token = crate::auth::mint(&claims, &self.key).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let tls = self
            .connector
            .connect("localhost".try_into().unwrap(), tcp)
            .await
            .unwrap();
        let url = format!("wss://localhost:{}/ws?token={token}", self.port);
        let request = url.into_client_request().unwrap();
        let (mut client, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
        say(&mut client, r#"{"type":"join","room":"lobby"}"#).await;
        while next(&mut client).await["type"] != "list" {}
        client
    }
}

async fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).await.unwrap();
}

async fn next(client: &mut Client) -> Value {
    loop {
        if let Message::Text(text) = client.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_is_counted() {
    let running = Running::start();
    let mut ann = running.join("ann").await;
    let mut bob = running.join("bob").await;
    let mut eve = running.join("eve").await;
    say(&mut eve, A_BUG).await;
    let end = loop {
        if let Message::Close(Some(close)) = eve.next().await.unwrap().unwrap() {
            break close;
        }
    };
    assert_eq!((u16::from(end.code), end.reason.as_str()), (1011, "internal"));
    say(&mut ann, r#"{"type":"chat","room":"lobby","content":"still here"}"#).await;
    for client in [&mut ann, &mut bob] {
        let mut left = false;
        loop {
            let message = next(client).await;
            left |= message["type"] == "left" && message["user"]["id"] == "eve";
            if message["type"] == "chat" {
                assert_eq!(message["content"], "still here");
                break;
            }
        }
        // The chat may have been said before eve's connection was gone.
        while !left {
            let message = next(client).await;
            left = message["type"] == "left" && message["user"]["id"] == "eve";
        }
    }
    let metrics = running.node.metrics.render();
    let counted = metrics
        .lines()
        .find(|line| line.contains("panics") && line.contains("\"connection\""));
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{counted:?}");
    running.node.tasks.stop_services();
}
