//! One connection to NATS, from its making until it breaks. It is never mended: what waited in a connection that broke
//! would be published on the next one, long after its sender was told that nothing is known of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{
    Auth, AuthError, Client, ConnectError, ConnectOptions, Event, HeaderMap, Message, Request, ServerAddr,
};
use async_nats::{RequestErrorKind, ServerError, Subscriber};
use bytes::Bytes;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::backplane::contract::{Failed, Refusal};

use super::feed::Feed;
use super::settings::Settings;

/// How often the server is asked whether it is there; two questions without an answer end the connection.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Commands that wait for the socket: a batch of every core and the audit's questions.
const COMMANDS_MAX: usize = 4_096;

/// Messages of one subscription that wait for the reader. What does not fit is dropped by the client and told, and then
/// all rooms are compared.
pub(super) const WAITING_MAX: usize = 1_024;

/// New subscriptions on their way to the reader.
const FEEDS_MAX: usize = 256;

/// A connection, and what is known of the server behind it.
pub(super) struct Link {
    client: Client,
    /// Cancelled when it can no longer be used.
    pub gone: CancellationToken,
    /// What the connection itself said.
    pub said: Arc<Said>,
    /// Random, another one after each start of the server.
    pub server: Arc<str>,
    /// The server's version.
    pub version: (u64, u64),
    /// Whether the server is one of several: then a stream's leader is any of them.
    pub clustered: bool,
    pub jetstream: bool,
    call_timeout: Duration,
    /// To the task that reads subscriptions.
    feeds: mpsc::Sender<Feed>,
}

/// What a connection told of itself.
#[derive(Default)]
pub(super) struct Said {
    /// It broke.
    broken: CancellationToken,
    /// Messages were dropped, as a subscription was full.
    pub dropped: Notify,
    /// The newest refusal of the server, in its words.
    complaint: Mutex<Option<String>>,
}

impl Said {
    fn hear(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.broken.cancel(),
            Event::SlowConsumer(_) => self.dropped.notify_one(),
            Event::ServerError(ServerError::Other(words)) => *self.complaint.lock() = Some(words),
            _ => {}
        }
    }

    /// What the server complained of last.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.lock().take()
    }
}

impl Link {
    /// Connects to the first server that answers. The other end of `feeds` is the reader's.
    pub async fn connect(settings: &Settings) -> Result<(Self, mpsc::Receiver<Feed>), ConnectError> {
        let said = Arc::new(Said::default());
        let client = connect(settings, Arc::clone(&said)).await?;
        let info = client.server_info();
        let (feeds, fed) = mpsc::channel(FEEDS_MAX);
        let link = Self {
            gone: said.broken.clone(),
            said,
            server: info.server_id.as_str().into(),
            version: version(&info.version),
            clustered: info.cluster.as_ref().is_some_and(|name| !name.is_empty()),
            jetstream: info.jetstream,
            call_timeout: settings.call_timeout,
            client,
            feeds,
        };
        Ok((link, fed))
    }

    /// Asks and waits for the one answer.
    pub async fn ask(&self, subject: String, headers: Option<HeaderMap>, payload: Bytes) -> Result<Message, Failed> {
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        // Dropped, the question may still be on its way: that is what `Unknown` says.
        tokio::select! {
            biased;
            () = self.gone.cancelled() => Err(Failed::Unknown),
            answer = tokio::time::timeout(self.call_timeout, self.client.send_request(subject, request)) => {
                match answer {
                    Ok(Ok(message)) => Ok(message),
                    Ok(Err(error)) => Err(failed(error.kind())),
                    Err(_) => Err(Failed::Unknown),
                }
            }
        }
    }

    /// Says without waiting for anything but room to say it.
    pub async fn say(&self, subject: String, reply: String, payload: Bytes) -> Result<(), Failed> {
        let said = self.client.publish_with_reply(subject, reply, payload);
        match tokio::time::timeout(self.call_timeout, said).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Failed::Unknown),
        }
    }

    /// Subscribes. Confirmed by the next answer that comes over this connection: the server does things in order.
    pub async fn subscribe(&self, subject: String) -> Result<Subscriber, Failed> {
        match tokio::time::timeout(self.call_timeout, self.client.subscribe(subject)).await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            _ => Err(Failed::Unknown),
        }
    }

    /// Hands a subscription to the reader.
    pub async fn feed(&self, feed: Feed) -> Result<(), Failed> {
        // The reader ends with the link.
        tokio::select! {
            biased;
            () = self.gone.cancelled() => Err(Failed::Unknown),
            sent = self.feeds.send(feed) => sent.map_err(|_| Failed::Unknown),
        }
    }

    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    pub fn inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// Largest message of this server, headers included.
    pub fn payload_bytes_max(&self) -> usize {
        self.client.max_payload()
    }

    pub fn is_usable(&self) -> bool {
        !self.gone.is_cancelled() && self.client.connection_state() == State::Connected
    }
}

fn failed(kind: RequestErrorKind) -> Failed {
    match kind {
        // Nobody listens there: no leader, or no JetStream.
        RequestErrorKind::NoResponders => Failed::Refused(Refusal::Away),
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => Failed::Refused(Refusal::Broken),
        RequestErrorKind::TimedOut | RequestErrorKind::Other => Failed::Unknown,
    }
}

/// The client would mend a connection by itself. It gives its account only once, so the second attempt fails, and with as
/// many attempts as there are hosts the client ends, and with it everything that waited in it.
async fn connect(settings: &Settings, said: Arc<Said>) -> Result<Client, ConnectError> {
    let url = &settings.url;
    let scheme = if url.tls { "tls" } else { "nats" };
    let addresses: Vec<ServerAddr> = url
        .hosts
        .iter()
        .filter_map(|host| format!("{scheme}://{host}").parse().ok())
        .collect();
    let made = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&made);
    let (user, password) = (url.user.clone(), url.password.clone());
    let account = move |_nonce: Vec<u8>| {
        let account = if once.load(Ordering::Acquire) {
            Err(AuthError::new("a connection that broke is not mended"))
        } else {
            Ok(account(user.as_deref(), password.as_ref()))
        };
        std::future::ready(account)
    };
    let mut options = ConnectOptions::with_auth_callback(account)
        .name("conclave")
        .connection_timeout(settings.connect_timeout)
        .max_reconnects(addresses.len())
        .ignore_discovered_servers()
        .require_tls(url.tls)
        .ping_interval(PING_INTERVAL)
        .request_timeout(None)
        .client_capacity(COMMANDS_MAX)
        .subscription_capacity(WAITING_MAX)
        .event_callback(move |event| {
            said.hear(event);
            std::future::ready(())
        });
    if let Some(roots) = &settings.ca_file {
        options = options.add_root_certificates(roots.clone());
    }
    let client = options.connect(addresses).await?;
    made.store(true, Ordering::Release);
    Ok(client)
}

fn account(user: Option<&str>, password: Option<&SecretString>) -> Auth {
    let secret = password.map(|password| password.expose_secret().to_owned());
    let mut auth = Auth::new();
    match user {
        Some(user) => {
            auth.username = Some(user.to_owned());
            auth.password = secret;
        }
        None => auth.token = secret,
    }
    auth
}

/// Of `2.9.10` the first two numbers.
fn version(text: &str) -> (u64, u64) {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
