//! The bench against a room server of forty lines, so that it is known to count right before it judges a real one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::cli::args::{Load, Publishing};
use plan::{Pace, Publishers};
use stamp::Stamp;

/// Members, and the number of the newest chat.
type Rooms = Arc<Mutex<HashMap<String, (Vec<Sender<String>>, u64)>>>;

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    LosesEveryTenth,
    RefusesTokens,
    ClosesOnChat,
}

fn serve(fault: Fault) -> SocketAddr {
    let named = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(named.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![named.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (rooms, mut connections) = (Rooms::default(), JoinSet::new());
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(connection(acceptor.clone(), stream, rooms.clone(), fault));
            }
        });
    });
    address
}

async fn connection(
    acceptor: tokio_rustls::TlsAcceptor,
    stream: tokio::net::TcpStream,
    rooms: Rooms,
    fault: Fault,
) -> Option<()> {
    let stream = acceptor.accept(stream).await.ok()?;
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    if fault == Fault::RefusesTokens {
        return socket.close(Some(close(1008, "token_expired"))).await.ok();
    }
    socket.send(Message::text(r#"{"type":"connected"}"#)).await.ok()?;
    let (sender, mut outbox) = channel(1_024);
    let mut count = 0;
    loop {
        tokio::select! {
            Some(text) = outbox.recv() => {
                count += 1;
                if fault != Fault::LosesEveryTenth || count % 10 != 0 {
                    socket.send(Message::text(text)).await.ok()?;
                }
            }
            read = socket.next() => {
                let Message::Text(text) = read?.ok()? else { continue };
                let Ok(message) = serde_json::from_str::<Value>(&text) else {
                    socket.send(Message::Text(text)).await.ok()?; // as /echo does
                    continue;
                };
                let room = message["room"].as_str()?.to_owned();
                if message["type"] == "join" {
                    rooms.lock().entry(room).or_default().0.push(sender.clone());
                    socket.send(Message::text(r#"{"type":"list","ref":1,"users":[]}"#)).await.ok()?;
                } else if fault == Fault::ClosesOnChat {
                    return socket.close(Some(close(1013, "overloaded"))).await.ok();
                } else {
                    let (members, seq) = {
                        let mut rooms = rooms.lock();
                        let room = rooms.get_mut(&room)?;
                        room.1 += 1;
                        room.clone()
                    };
                    let chat = text.replacen(r#""chat","#, &format!(r#""chat","seq":{seq},"#), 1);
                    for member in members {
                        let _ = member.send(chat.clone()).await;
                    }
                }
            }
        }
    }
}

fn close(code: u16, reason: &'static str) -> tokio_tungstenite::tungstenite::protocol::CloseFrame {
    tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: code.into(),
        reason: reason.into(),
    }
}

fn load(address: SocketAddr, connections: u32, rooms: u32) -> Load {
    Load {
        url: format!("wss://localhost:{}/ws", address.port()),
        token: Some("t".to_owned()),
        config: None,
        connections,
        rooms,
        seconds: 1,
        in_flight: 8,
        threads: Some(2),
        pid: Some(std::process::id()),
        ca: None::<PathBuf>,
        insecure: true,
        json: false,
        yes: false,
    }
}

fn publishing(flood: bool) -> Publishing {
    Publishing {
        publishers: 3,
        rate: 20.0,
        size: 64,
        flood,
        window: 2,
    }
}

fn run_broadcast(fault: Fault, flood: bool) -> Value {
    let load = load(serve(fault), 12, 3);
    let work = Work::broadcast(&load, &publishing(flood)).unwrap();
    let plan = Plan::new(&load, work, &Environment::new(Vec::new())).unwrap();
    serde_json::from_str(&broadcast::run(plan, false).unwrap().json()).unwrap()
}

#[test]
fn idle_opens_and_holds() {
    let load = load(serve(Fault::None), 20, 2);
    let plan = Plan::new(&load, Work::Idle, &Environment::new(Vec::new())).unwrap();
    let report = idle::run(plan, false).unwrap();
    let found: Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((&found["ok"], &found["opened"]), (&true.into(), &20.into()), "{found}");
    assert!(
        found["handshakes_per_s"].as_f64().unwrap() > 0.0 && found["server_kib_per_connection"].is_number(),
        "{found}"
    );
    assert!(report.table().contains("handshakes per second"));
}

#[test]
fn broadcast_counts_every_delivery() {
    for flood in [false, true] {
        let found = run_broadcast(Fault::None, flood);
        assert_eq!(
            (&found["ok"], found["delivery_ratio"].as_f64()),
            (&true.into(), Some(1.0)),
            "{found}"
        );
        assert!(found["latency_p50_ms"].as_f64().unwrap() > 0.0, "{found}");
        if !flood {
            let published = found["published_per_s"].as_f64().unwrap();
            assert!((55.0..=65.0).contains(&published), "3 x 20 per second: {found}");
        }
    }
}

fn run_soak(fault: Fault) -> Value {
    let load = Load {
        seconds: 2,
        ..load(serve(fault), 12, 3)
    };
    let work = Work::soak(&load, &publishing(false), 30.0).unwrap();
    let plan = Plan::new(&load, work, &Environment::new(Vec::new())).unwrap();
    serde_json::from_str(&soak::run(plan, false).unwrap().json()).unwrap()
}

#[test]
fn a_soak_counts_who_comes_and_goes() {
    let found = run_soak(Fault::None);
    assert_eq!((&found["ok"], &found["holes"]), (&true.into(), &0.into()), "{found}");
    assert!(found["returned"].as_u64().unwrap() > 5, "{found}");
    assert!(found["deliveries"].as_u64().unwrap() > 100, "{found}");
    let found = run_soak(Fault::ClosesOnChat);
    assert_eq!(
        (&found["ok"], &found["connections_lost"]),
        (&false.into(), &3.into()),
        "{found}"
    );
    let found = run_soak(Fault::LosesEveryTenth);
    assert!(found["ok"] == false && found["holes"].as_u64().unwrap() > 5, "{found}");
}

#[test]
fn lost_deliveries_are_seen() {
    let found = run_broadcast(Fault::LosesEveryTenth, false);
    let ratio = found["delivery_ratio"].as_f64().unwrap();
    assert!(found["ok"] == false && (0.85..0.95).contains(&ratio), "{found}");
}

#[test]
fn lost_connections_are_seen_with_their_reason() {
    let found = run_broadcast(Fault::ClosesOnChat, false);
    assert_eq!(
        (&found["ok"], &found["connections_lost"]),
        (&false.into(), &3.into()),
        "{found}"
    );
    assert!(found["notes"].to_string().contains("1013 overloaded"), "{found}");
}

#[test]
fn echo_measures_round_trips() {
    let load = load(serve(Fault::None), 4, 1);
    let plan = Plan::new(&load, Work::echo(64).unwrap(), &Environment::new(Vec::new())).unwrap();
    assert_eq!(plan.target.uri.path(), "/echo");
    let found: Value = serde_json::from_str(&echo::run(plan, false).unwrap().json()).unwrap();
    assert_eq!(
        (&found["ok"], found["echo_ratio"].as_f64()),
        (&true.into(), Some(1.0)),
        "{found}"
    );
}

#[test]
fn a_refused_token_is_told_once_with_what_to_do() {
    let load = load(serve(Fault::RefusesTokens), 50, 1);
    for work in [Work::Idle, Work::echo(64).unwrap()] {
        let plan = Plan::new(&load, work, &Environment::new(Vec::new())).unwrap();
        let Err(Failure::Other(error)) = idle::run(plan, false) else {
            panic!("accepted")
        };
        let said = error.to_string();
        assert!(
            said.contains("1008 token_expired") && said.contains("conclave token --check"),
            "{said}"
        );
    }
}

#[test]
fn stamps_survive_and_pad() {
    let stamp = Stamp {
        nanoseconds: 123_456_789,
        connection: 77,
    };
    for size in [stamp::BYTES, 100] {
        let mut text = String::from(r#"{"content":""#);
        let head = text.len();
        stamp.write(size, &mut text);
        assert_eq!(text.len() - head, size);
        assert_eq!(Stamp::find(text.as_bytes()), Some(stamp));
    }
    for other in ["", "@t", "@tzzzzzzzzzzzzzzzzzzzzzzzz", "@t0123", r#"{"type":"join"}"#] {
        assert_eq!(Stamp::find(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn members_of_uneven_rooms_add_up() {
    let load = load("127.0.0.1:1".parse().unwrap(), 11, 3);
    let plan = Plan::new(&load, Work::Idle, &Environment::new(Vec::new())).unwrap();
    assert_eq!(
        [plan.members(0), plan.members(1), plan.members(2), plan.members(3)],
        [4, 4, 3, 4]
    );
    assert_eq!(plan.room(1), plan.room(10));
    assert_eq!(
        Work::broadcast(&load, &publishing(true)).unwrap(),
        Work::Broadcast(Publishers {
            count: 3,
            pace: Pace::Window(2),
            size: 64
        })
    );
}
