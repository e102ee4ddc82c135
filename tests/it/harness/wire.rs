//! A wire to a Redis that a test can tamper with: links look alive and deliver nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what the server sends on links that have subscribed to something. Links that are made later are
/// left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tamper {
    /// It is delivered.
    Nothing,
    /// Nothing comes any more, and the link stays.
    Hold,
    /// Messages of channels are dropped; answers come.
    Deaf,
    /// This comes first, once.
    Inject(Vec<u8>),
}

/// Listens on a port of its own, and connects each who comes to the server.
pub struct Wire {
    port: u16,
    links: Arc<Mutex<Vec<watch::Sender<Tamper>>>>,
    dropped: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (links, dropped) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (all, count) = (Arc::clone(&links), Arc::clone(&dropped));
        let task = tokio::spawn(async move {
            let mut wires = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                let (tamper, tampered) = watch::channel(Tamper::Nothing);
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let back = deliver(from_server, to_client, tampered, Arc::clone(&count));
                let links = Arc::clone(&all);
                wires.spawn(async move {
                    tokio::select! {
                        () = forward(from_client, to_server, tamper, &links) => {}
                        () = back => {}
                    }
                });
            }
        });
        Self {
            port: own,
            links,
            dropped,
            task,
        }
    }

    /// For `backplane.url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Tampers with every link that has subscribed by now.
    pub fn tamper(&self, tamper: Tamper) {
        for link in self.links.lock().drain(..) {
            // Links that have ended are of no interest.
            let _ = link.send(tamper.clone());
        }
    }

    /// Messages dropped so far.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// From the client to the server; a link that subscribes is noted.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    tamper: watch::Sender<Tamper>,
    links: &Mutex<Vec<watch::Sender<Tamper>>>,
) {
    let (mut piece, mut tamper) = (vec![0; 64 * 1024], Some(tamper));
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if piece[..read].windows(10).any(|word| word == b"SSUBSCRIBE")
            && let Some(tamper) = tamper.take()
        {
            links.lock().push(tamper);
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

/// From the server to the client, a frame at a time.
async fn deliver(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut tamper: watch::Receiver<Tamper>,
    dropped: Arc<AtomicUsize>,
) {
    let mut bytes = Vec::new();
    loop {
        tokio::select! {
            read = from.read_buf(&mut bytes) => if !matches!(read, Ok(1..)) { return },
            Ok(()) = tamper.changed() => {}
        }
        let now = tamper.borrow_and_update().clone();
        if let Tamper::Inject(frame) = &now
            && !frame.is_empty()
        {
            if to.write_all(frame).await.is_err() {
                return;
            }
            // Once: whoever made it is not asked again.
            tamper = watch::channel(Tamper::Nothing).1;
        }
        while let Some(length) = frame(&bytes) {
            if now == Tamper::Hold {
                break;
            }
            let whole: Vec<u8> = bytes.drain(..length).collect();
            if now == Tamper::Deaf && whole.starts_with(b">3\r\n$8\r\nsmessage") {
                dropped.fetch_add(1, Ordering::Relaxed);
            } else if to.write_all(&whole).await.is_err() {
                return;
            }
        }
    }
}

/// The length of the first frame of RESP3, once it is whole.
fn frame(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' | b'=' | b'!' => {
            let end = usize::try_from(count()?).map_or(line, |length| line + length + 2);
            (bytes.len() >= end).then_some(end)
        }
        b'*' | b'>' | b'~' | b'%' | b'|' => {
            let doubled = if matches!(bytes[0], b'%' | b'|') { 2 } else { 1 };
            let mut at = line;
            for _ in 0..count()?.max(0) * doubled {
                at += frame(bytes.get(at..)?)?;
            }
            Some(at)
        }
        _ => Some(line),
    }
}
