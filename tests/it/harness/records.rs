//! TLS 1.3 records sealed by the test itself, so that they can say what no TLS library says.
//!
//! rustls does the handshake; its key log gives the secrets, and from there on this file is the client
//! (RFC 8446 sections 5 and 7).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls::Tls;
use super::{Node, within};

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

/// A KeyUpdate that asks for none in return (RFC 8446 section 4.6.3), and one that does.
pub const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
pub const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// Secrets by their name in the key log.
#[derive(Debug, Default)]
struct Log(Mutex<HashMap<String, Vec<u8>>>);

impl rustls::KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().insert(label.to_owned(), secret.to_vec());
    }
}

/// A connection after its handshake.
pub struct Records {
    socket: TcpStream,
    received: Vec<u8>,
    ours: Direction,
    theirs: Direction,
    /// Application data of the server that nobody has looked at.
    pub plain: Vec<u8>,
    /// Records with application data that the server has sent.
    pub with_data: usize,
    /// KeyUpdates that the server has sent.
    pub key_updates: usize,
}

impl Records {
    pub async fn connect(node: &Node) -> Self {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        let log = Arc::new(Log::default());
        let tls = Tls::with_provider(node.listen, &node.certificate, provider, &[&rustls::version::TLS13]);
        // The handshake ends before the server says anything under the new keys, so their numbers begin at 0.
        let (socket, _) = tls.key_log(log.clone()).connect().await.into_inner();
        let secret = |label: &str| log.0.lock().unwrap()[label].clone();
        Self {
            socket,
            received: Vec::new(),
            ours: Direction::new(secret("CLIENT_TRAFFIC_SECRET_0")),
            theirs: Direction::new(secret("SERVER_TRAFFIC_SECRET_0")),
            plain: Vec::new(),
            with_data: 0,
            key_updates: 0,
        }
    }

    /// One record, not sent yet.
    pub fn seal(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        self.ours.seal(kind, payload)
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within("the server to take bytes", self.socket.write_all(bytes))
            .await
            .expect("the server takes bytes");
    }

    /// As [`Records::write`], and whether the server takes it does not matter.
    pub async fn offer(&mut self, bytes: &[u8]) {
        let _ = within("the server to take bytes", self.socket.write_all(bytes)).await;
    }

    /// Application data in one record.
    pub async fn send(&mut self, payload: &[u8]) {
        let record = self.seal(APPLICATION_DATA, payload);
        self.write(&record).await;
    }

    /// After a whole KeyUpdate of ours.
    pub fn update_our_keys(&mut self) {
        self.ours.update();
    }

    /// Reads until the application data contains `text`, and forgets everything up to its end.
    pub async fn hear(&mut self, text: &str) {
        loop {
            let found = self
                .plain
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = found {
                self.plain.drain(..at + text.len());
                return;
            }
            assert!(
                self.read_record().await,
                "the connection ended before {text:?}: {}",
                self.shown()
            );
        }
    }

    /// Reads to the end of the connection.
    pub async fn end(&mut self) {
        while self.read_record().await {}
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.plain).into_owned()
    }

    /// Opens one record; false at the end of the connection.
    async fn read_record(&mut self) -> bool {
        loop {
            if let Some(head) = self.received.first_chunk::<5>() {
                let end = 5 + usize::from(u16::from_be_bytes([head[3], head[4]]));
                if self.received.len() >= end {
                    let record = self.received.drain(..end).collect();
                    self.open(record);
                    return true;
                }
            }
            match within("a record", self.socket.read_buf(&mut self.received)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return false,
            }
        }
    }

    fn open(&mut self, record: Vec<u8>) {
        let (kind, payload) = self.theirs.open(record);
        match kind {
            APPLICATION_DATA => {
                self.with_data += 1;
                self.plain.extend(payload);
            }
            HANDSHAKE if payload[0] == KEY_UPDATE[0] => {
                self.key_updates += 1;
                self.theirs.update();
            }
            // Session tickets, alerts.
            _ => {}
        }
    }
}

/// One direction's secret, and the number of its next record.
struct Direction {
    secret: Vec<u8>,
    number: u64,
}

impl Direction {
    fn new(secret: Vec<u8>) -> Self {
        Self { secret, number: 0 }
    }

    fn update(&mut self) {
        *self = Self::new(expand(&self.secret, "traffic upd", 32));
    }

    /// The key, and the nonce of the next record.
    fn next(&mut self) -> (LessSafeKey, Nonce) {
        let key = UnboundKey::new(&AES_128_GCM, &expand(&self.secret, "key", 16)).expect("a key of 16 bytes");
        let mut nonce: [u8; 12] = expand(&self.secret, "iv", 12).try_into().unwrap();
        for (byte, number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        self.number += 1;
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce))
    }

    fn seal(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let (key, nonce) = self.next();
        let mut inner = [payload, &[kind]].concat();
        let length = u16::try_from(inner.len() + AES_128_GCM.tag_len()).expect("a record of at most 64 KiB");
        let head = [&[APPLICATION_DATA, 3, 3][..], &length.to_be_bytes()].concat();
        key.seal_in_place_append_tag(nonce, Aad::from(&head), &mut inner)
            .expect("it can be sealed");
        [head, inner].concat()
    }

    fn open(&mut self, mut record: Vec<u8>) -> (u8, Vec<u8>) {
        let (key, nonce) = self.next();
        let (head, body) = record.split_at_mut(5);
        let inner = key
            .open_in_place(nonce, Aad::from(&*head), body)
            .expect("a record of the server's");
        let (kind, payload) = inner.split_last().expect("a kind");
        (*kind, payload.to_vec())
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand(secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let info = [&[0, length as u8, label.len() as u8][..], label.as_bytes(), &[0]].concat();
    let mut bytes = vec![0; length];
    let prk = Prk::new_less_safe(HKDF_SHA256, secret);
    let info = [&info[..]];
    prk.expand(&info, Length(length))
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("a short key");
    bytes
}
