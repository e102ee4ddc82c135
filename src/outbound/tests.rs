//! The client against servers that lie, each on a thread of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use reqwest::dns::{Name, Resolve};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::resolver::{Filtered, ForbiddenName, Looking};
use super::*;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// For what never ends by itself.
const SHORT: Duration = Duration::from_millis(300);
const BYTES_MAX: usize = 4096;
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// Answers at most eight connections, one after the other.
fn server(answer: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().take(8).flatten().for_each(answer));
    at
}

/// Reads a request's head and says `text`.
fn says(text: impl Into<String>) -> SocketAddr {
    let text = text.into();
    server(move |mut stream| {
        head(&mut stream);
        drop(stream.write_all(text.as_bytes()));
    })
}

fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn outbound(networks: &[&str], lookup: Arc<dyn Lookup>) -> Outbound {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    Outbound::with_lookup(&config::Outbound { networks }, lookup)
}

fn client(deadline: Duration) -> Client {
    outbound(&[], Arc::new(System::default()))
        .client(Purpose::Jwks, None, deadline)
        .unwrap()
}

async fn ask(client: &Client, url: &str) -> Result<Answer, CallFailed> {
    let target = Target::parse(url).unwrap();
    let ask = Ask {
        method: Method::GET,
        target: &target,
        path_and_query: None,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        answer_bytes_max: BYTES_MAX,
    };
    client.send(ask).await
}

#[tokio::test]
async fn an_answer_comes_as_it_is() {
    let (heard, hear) = sync_channel(1);
    let at = server(move |mut stream| {
        let _ = heard.send(head(&mut stream));
        let text = "HTTP/1.1 203 Quite\r\ncontent-encoding: gzip\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello";
        drop(stream.write_all(text.as_bytes()));
    });
    let client = client(PATIENCE);
    let answer = ask(&client, &format!("http://{at}/keys?a=1")).await.unwrap();
    assert_eq!(answer.status, 203);
    assert_eq!(answer.headers["x-a"], "1");
    assert_eq!(answer.body, "hello");
    let head = hear.recv_timeout(PATIENCE).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /keys?a=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("user-agent: conclave/"), "{head}");
    for absent in ["accept-encoding", "cookie", "authorization", "referer"] {
        assert!(!head.contains(absent), "{head}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere() {
    let canary = TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let there = canary.local_addr().unwrap();
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let at = says(format!(
            "HTTP/1.1 {status}\r\nlocation: http://{there}/\r\nrefresh: 0;url=http://{there}/\r\ncontent-length: 0\r\n\r\n"
        ));
        let answer = ask(&client(PATIENCE), &format!("http://{at}/")).await.unwrap();
        assert!(answer.status.is_redirection());
    }
    let error = canary.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn whatever_is_too_long_is_not_waited_for() {
    let endless = server(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("400\r\n{}\r\n", "a".repeat(0x400));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
    });
    let announced = says("HTTP/1.1 200 OK\r\ncontent-length: 4097\r\n\r\n");
    let until_close = server(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'a'; 1024]).is_ok() {}
    });
    for at in [endless, announced, until_close] {
        let result = ask(&client(PATIENCE), &format!("http://{at}/")).await;
        assert_eq!(result.err(), Some(CallFailed::TooLarge));
    }
    let fits = says(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n{}",
        "a".repeat(4096)
    ));
    assert_eq!(
        ask(&client(PATIENCE), &format!("http://{fits}/"))
            .await
            .unwrap()
            .body
            .len(),
        4096
    );
}

#[tokio::test]
async fn whatever_is_too_slow_ends_at_the_deadline() {
    let drip = |text: &'static str| {
        server(move |mut stream| {
            head(&mut stream);
            let _ = stream.write_all(text.as_bytes());
            while stream.write_all(b"a").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let in_body = drip("HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n");
    let in_head = drip("HTTP/1.1 200 OK\r\nx-a: ");
    let interim = server(|mut stream| {
        head(&mut stream);
        while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let silent = server(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    for at in [in_body, in_head, interim, silent] {
        let begun = Instant::now();
        let result = ask(&client(SHORT), &format!("http://{at}/")).await;
        assert_eq!(result.err(), Some(CallFailed::Timeout));
        assert!(begun.elapsed() >= SHORT);
    }
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    let endless_head = server(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: ");
        while stream.write_all(&[b'a'; 4096]).is_ok() {}
    });
    let many_headers = says(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-a: b\r\n".repeat(10_000)));
    let broken_off = says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello");
    for at in [
        endless_head,
        many_headers,
        broken_off,
        says("SSH-2.0-OpenSSH\r\n\r\n"),
        says(""),
    ] {
        let result = ask(&client(PATIENCE), &format!("http://{at}/")).await;
        assert_eq!(result.err(), Some(CallFailed::Protocol));
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let result = ask(&client(PATIENCE), &format!("http://{nobody}/")).await;
    assert_eq!(result.err(), Some(CallFailed::Connect));
}

/// An authority's file, and a server with its certificate for `name`.
struct Vouched {
    dir: tempfile::TempDir,
    at: SocketAddr,
}

impl Vouched {
    fn for_name(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = Arc::new(tls_server(made.cert.der().clone(), key, &[]));
        let at = server(move |stream| {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream);
            head(&mut stream);
            let _ = stream.write_all(HELLO.as_bytes());
        });
        Self { dir, at }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

fn tls_server(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

#[tokio::test]
async fn only_who_is_vouched_for_is_heard() {
    let (good, other) = (Vouched::for_name("localhost"), Vouched::for_name("login.example.com"));
    let outbound = outbound(&[], Arc::new(System::default()));
    let with = |ca: Option<PathBuf>| outbound.client(Purpose::Jwks, ca.as_deref(), PATIENCE).unwrap();
    let url = |at: SocketAddr| format!("https://localhost:{}/", at.port());
    assert_eq!(ask(&with(Some(good.ca())), &url(good.at)).await.unwrap().body, "hello");
    // Whoever waits for the end of a request's head would wait for ever.
    let plain = server(|mut stream| drop(stream.write_all(HELLO.as_bytes())));
    for (ca, at, why) in [
        (Some(other.ca()), other.at, "another name"),
        (Some(other.ca()), good.at, "another authority"),
        (None, good.at, "not the system's"),
        (Some(good.ca()), plain, "not TLS"),
    ] {
        assert_eq!(ask(&with(ca), &url(at)).await.err(), Some(CallFailed::Tls), "{why}");
    }
    let counts = outbound.counts();
    assert_eq!(counts.of(Purpose::Jwks, OutboundResult::Ok).value(), 1);
    assert_eq!(counts.of(Purpose::Jwks, OutboundResult::Tls).value(), 4);
}

#[test]
fn a_ca_file_that_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let refused = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let outbound = outbound(&[], Arc::new(System::default()));
        let error = outbound.client(Purpose::Hook, Some(&path), SHORT).err().unwrap();
        assert!(format!("{error:#}").contains("ca.pem"), "{error:#}");
    };
    refused(None);
    refused(Some(""));
    refused(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
}

/// One connection, as many requests as come; says over what each came.
fn http2(name: &str) -> (PathBuf, SocketAddr, tempfile::TempDir, Receiver<http::Version>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = Arc::new(tls_server(made.cert.der().clone(), key, &[b"h2", b"http/1.1"]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (heard, hear) = sync_channel(8);
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.unwrap();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let _ = heard.send(request.version());
            async { Ok::<_, std::convert::Infallible>(http::Response::new("hello".to_owned())) }
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(serve);
    });
    (ca, at, dir, hear)
}

#[tokio::test]
async fn one_connection_serves_many_questions_where_http2_is_spoken() {
    let (ca, at, _dir, hear) = http2("localhost");
    let outbound = outbound(&[], Arc::new(System::default()));
    let client = outbound.client(Purpose::Hook, Some(&ca), PATIENCE).unwrap();
    for _ in 0..3 {
        let answer = ask(&client, &format!("https://localhost:{}/", at.port()))
            .await
            .unwrap();
        assert_eq!(answer.body, "hello");
        assert_eq!(hear.recv_timeout(PATIENCE).unwrap(), http::Version::HTTP_2);
    }
}

/// Says something else each time, and the last for ever.
struct Fickle(Mutex<VecDeque<Vec<IpAddr>>>);

impl Fickle {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |address: &&str| address.parse().unwrap();
        let answers = answers.iter().map(|one| one.iter().map(parse).collect()).collect();
        Arc::new(Self(Mutex::new(answers)))
    }
}

impl Lookup for Fickle {
    fn lookup(&self, _: String) -> Looking {
        let mut answers = self.0.lock();
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        Box::pin(async move { Ok(answer.unwrap_or_default()) })
    }
}

#[tokio::test]
async fn a_name_that_changes_its_mind_never_leads_inside() {
    let filtered = Filtered {
        rule: Arc::default(),
        lookup: Fickle::new(&[&["1.1.1.1"], &["127.0.0.1", "1.1.1.1", "::1"], &["127.0.0.1"]]),
    };
    let resolve = || filtered.resolve(Name::from_str("login.example.com").unwrap());
    for _ in 0..2 {
        let found: Vec<_> = resolve().await.unwrap().map(|at| at.to_string()).collect();
        assert_eq!(found, ["1.1.1.1:0"]);
    }
    let error = resolve().await.err().unwrap();
    assert!(error.is::<ForbiddenName>(), "{error}");
}

#[tokio::test]
async fn a_forbidden_address_is_never_dialled() {
    let canary = TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let port = canary.local_addr().unwrap().port();
    let outbound = outbound(&[], Fickle::new(&[&["127.0.0.1", "::ffff:127.0.0.1"]]));
    let client = outbound.client(Purpose::Forward, None, PATIENCE).unwrap();
    for url in [
        format!("http://login.example.com:{port}/"),
        format!("https://login.example.com:{port}/"),
        format!("http://169.254.169.254:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://[::]:{port}/"),
    ] {
        assert_eq!(ask(&client, &url).await.err(), Some(CallFailed::Forbidden), "{url}");
    }
    assert_eq!(canary.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(
        outbound
            .counts()
            .of(Purpose::Forward, OutboundResult::Forbidden)
            .value(),
        5
    );
}

#[tokio::test]
async fn what_was_checked_is_what_is_dialled() {
    let at = says(HELLO);
    // Asked a second time, the name would lead elsewhere.
    let lookup = Fickle::new(&[&["127.0.0.1"], &["192.0.2.1"]]);
    let outbound = outbound(&["127.0.0.0/8"], lookup);
    let client = outbound.client(Purpose::Jwks, None, PATIENCE).unwrap();
    let url = format!("http://login.example.com:{}/", at.port());
    assert_eq!(ask(&client, &url).await.unwrap().body, "hello");
}
