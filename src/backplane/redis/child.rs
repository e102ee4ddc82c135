//! A `redis-server` of a test's own, and engines that use it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value};
use tokio::sync::watch;

use super::super::contract::{Backplane as _, Control, Entry, PresenceEvent, RoomKey, Scope, Sink};
use super::Redis;
use super::payload::Payload;
use super::settings::{Host, Kept, Places, Settings};
use crate::config::classes::Classes;
use crate::config::default_config;
use crate::runtime::Tasks;

/// A server with nothing in it, killed when dropped.
pub(super) struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Somebody else may take a free port before the server does.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            if let Some(child) = run(port, dir.path()) {
                return Self { child, port, dir };
            }
        }
        panic!("redis-server found no port");
    }

    /// Killed and started again, with nothing in it.
    pub(super) fn restart(&mut self) {
        self.kill();
        // The port may take a moment to be free.
        let again = (0..100).find_map(|_| run(self.port, self.dir.path()));
        self.child = again.expect("it starts again");
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/?protocol=resp3", self.port)).expect("a client")
    }

    /// A connection past the engine.
    pub(super) async fn raw(&self) -> MultiplexedConnection {
        self.client()
            .get_multiplexed_async_connection()
            .await
            .expect("a connection")
    }

    /// One command past the engine, in words.
    pub(super) async fn ask(&self, words: &str) -> Value {
        let mut command = redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        command.query_async(&mut self.raw().await).await.expect("an answer")
    }

    /// Everything that is told of these rooms from now on.
    pub(super) async fn listen(&self, engine: &Redis, rooms: &[RoomKey]) -> Listener {
        let heard: Arc<Mutex<Vec<(String, PresenceEvent)>>> = Arc::default();
        let (into, keys) = (Arc::clone(&heard), engine.keys.clone());
        let hear = move |push: PushInfo| {
            if let (PushKind::SMessage, [Value::BulkString(channel), Value::BulkString(payload)]) =
                (&push.kind, push.data.as_slice())
            {
                let (_, room) = keys.room_of(channel).expect("a room's channel");
                if let Ok(Payload::Presence(event)) = Payload::parse(payload.clone().into()) {
                    into.lock().push((room.to_owned(), event));
                }
            }
            Ok::<(), redis::aio::SendError>(())
        };
        let config = AsyncConnectionConfig::new().set_push_sender(hear);
        let mut connection = self
            .client()
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .expect("a connection");
        for room in rooms {
            let mut subscribe = redis::cmd("SSUBSCRIBE");
            subscribe.arg(engine.keys.channel(room));
            let _: Value = subscribe.query_async(&mut connection).await.expect("a subscription");
        }
        Listener { connection, heard }
    }

    /// An engine that uses this server.
    pub(super) async fn engine(&self) -> Node {
        let settings = Settings {
            places: Places::One(Host {
                name: "127.0.0.1".to_owned(),
                port: self.port,
            }),
            user: None,
            password: None,
            sentinel_password: None,
            db: 0,
            tls: false,
            ca_file: None,
            prefix: "conclave".to_owned(),
            kept: Kept::Async,
            connect_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(20),
            classes: Classes::new(&default_config()),
        };
        let (engine, tasks, heard) = (Redis::with_settings(settings), Tasks::default(), Heard::new());
        Arc::clone(&engine)
            .start(Arc::clone(&heard) as Arc<dyn Sink>, &tasks)
            .await
            .expect("it starts");
        Node { engine, tasks, heard }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that can be asked; none if it ended at once.
fn run(port: u16, dir: &std::path::Path) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server starts (Debian: apt-get install redis-server)");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    if lines.any(|line| line.is_ok_and(|line| line.contains("Ready to accept connections"))) {
        return Some(child);
    }
    let _ = child.wait();
    None
}

/// Presence of some rooms, as subscribers get it.
pub(super) struct Listener {
    connection: MultiplexedConnection,
    heard: Arc<Mutex<Vec<(String, PresenceEvent)>>>,
}

impl Listener {
    /// All that was told before this call.
    pub(super) async fn heard(&mut self) -> Vec<(String, PresenceEvent)> {
        // Redis answers behind what it has told already.
        let _: Value = redis::cmd("PING")
            .query_async(&mut self.connection)
            .await
            .expect("a pong");
        self.heard.lock().clone()
    }
}

/// One engine, its tasks and what it tells.
pub(super) struct Node {
    pub(super) engine: Arc<Redis>,
    pub(super) tasks: Tasks,
    pub(super) heard: Arc<Heard>,
}

impl std::ops::Deref for Node {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.engine
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stop_services();
    }
}

/// Remembers what control brought.
pub(super) struct Heard(watch::Sender<(Vec<Control>, usize)>);

impl Heard {
    fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::default()))
    }

    /// Waits until what was heard, and the number of suspicions, are so.
    pub(super) async fn until(&self, is_so: impl Fn(&[Control], usize) -> bool) -> (Vec<Control>, usize) {
        let mut seen = self.0.subscribe();
        let so = seen.wait_for(|(controls, suspicions)| is_so(controls, *suspicions));
        let waited = tokio::time::timeout(Duration::from_secs(60), so).await;
        waited.expect("it comes to that").expect("the sink is there").clone()
    }
}

impl Sink for Heard {
    fn message(&self, _room: &str, _entry: Entry) {}

    fn presence(&self, _room: &str, _event: PresenceEvent) {}

    fn control(&self, control: Control) {
        self.0.send_modify(|(controls, _)| controls.push(control));
    }

    fn control_suspect(&self) {
        self.0.send_modify(|(_, suspicions)| *suspicions += 1);
    }

    fn suspect(&self, _scope: Scope<'_>) {}

    fn up(&self, _up: bool) {}

    fn unready(&self, _unready: bool) {}
}
