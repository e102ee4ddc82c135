//! Makes connections: name, TCP, TLS, sign-in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use secrecy::{ExposeSecret as _, SecretString};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::settings::{Host, Settings};
use crate::net::SYSTEM_BUNDLES;
use crate::runtime::Tasks;

/// Commands that wait for the task that writes them. Callers above it wait in turn.
const WRITES_WAITING_MAX: usize = 1_024;

/// Unanswered bytes end a connection after this time even if nobody asks anything.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no connection came about. Holds no secret: neither does what Redis answers to a wrong password.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("{0}: {1}")]
    Io(Host, std::io::Error),
    #[error("{0} did not answer in time")]
    Timeout(Host),
    #[error("{0} refused: {1}")]
    Refused(Host, redis::RedisError),
    #[error("{0} is no name that a certificate could have")]
    Name(Host),
}

/// As whom to sign in.
#[derive(Debug, Clone, Default)]
struct Account {
    user: Option<String>,
    password: Option<SecretString>,
    db: i64,
}

/// Makes links with everything that the configuration says of them.
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    servers: Account,
    sentinels: Account,
    connect_timeout: Duration,
    call_timeout: Duration,
    tasks: Tasks,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Dialer {
    /// # Errors
    /// Certificates that cannot be read.
    pub(super) fn new(settings: &Settings, tasks: Tasks) -> anyhow::Result<Self> {
        let tls = settings.tls.then(|| connector(settings.ca_file.clone())).transpose()?;
        Ok(Self {
            tls,
            servers: Account {
                user: settings.user.clone(),
                password: settings.password.clone(),
                db: settings.db,
            },
            sentinels: Account {
                password: settings.sentinel_password.clone(),
                ..Account::default()
            },
            connect_timeout: settings.connect_timeout,
            call_timeout: settings.call_timeout,
            tasks,
        })
    }

    /// A link to a server; `pushes` hears what comes unasked.
    ///
    /// # Errors
    /// [`Unreachable`], after the connect timeout at the latest.
    pub(super) async fn dial<P: AsyncPushSender>(
        &self,
        host: &Host,
        pushes: Option<P>,
    ) -> Result<Arc<Link>, Unreachable> {
        self.dial_as(&self.servers, host, pushes).await
    }

    /// The same to a sentinel.
    pub(super) async fn dial_sentinel<P: AsyncPushSender>(
        &self,
        host: &Host,
        pushes: Option<P>,
    ) -> Result<Arc<Link>, Unreachable> {
        self.dial_as(&self.sentinels, host, pushes).await
    }

    async fn dial_as<P: AsyncPushSender>(
        &self,
        account: &Account,
        host: &Host,
        pushes: Option<P>,
    ) -> Result<Arc<Link>, Unreachable> {
        tokio::time::timeout(self.connect_timeout, self.connect(account, host, pushes))
            .await
            .map_err(|_| Unreachable::Timeout(host.clone()))?
    }

    async fn connect<P: AsyncPushSender>(
        &self,
        account: &Account,
        host: &Host,
        pushes: Option<P>,
    ) -> Result<Arc<Link>, Unreachable> {
        let unreachable = |error| Unreachable::Io(host.clone(), error);
        let stream = TcpStream::connect((host.name.as_str(), host.port))
            .await
            .map_err(unreachable)?;
        tune(&stream).map_err(unreachable)?;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WRITES_WAITING_MAX);
        if let Some(pushes) = pushes {
            config = config.set_push_sender(pushes);
        }
        if let Some(tls) = &self.tls {
            let name = ServerName::try_from(host.name.clone()).map_err(|_| Unreachable::Name(host.clone()))?;
            let stream = tls.connect(name, stream).await.map_err(unreachable)?;
            self.sign_in(account, host, stream, config).await
        } else {
            self.sign_in(account, host, stream, config).await
        }
    }

    async fn sign_in<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        account: &Account,
        host: &Host,
        stream: S,
        config: AsyncConnectionConfig,
    ) -> Result<Arc<Link>, Unreachable> {
        let mut info = RedisConnectionInfo::default()
            .set_db(account.db)
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("conclave", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &account.user {
            info = info.set_username(user);
        }
        if let Some(password) = &account.password {
            info = info.set_password(password.expose_secret());
        }
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| Unreachable::Refused(host.clone(), error))?;
        let closed = CancellationToken::new();
        let (asked, end) = (closed.clone(), closed.clone().drop_guard());
        self.tasks.spawn("redis link", async move {
            // With the driver the socket goes, and with the guard everybody who waits for an answer hears of it.
            let _end = end;
            let _ended = asked.run_until_cancelled_owned(driver).await;
        });
        Ok(Link::new(connection, host.clone(), closed, self.call_timeout))
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

fn connector(ca_file: Option<PathBuf>) -> anyhow::Result<TlsConnector> {
    use anyhow::Context as _;
    let path = ca_file
        .or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
        .context("no certificate authority to trust\n  help: set backplane.ca_file")?;
    let unreadable = || format!("backplane.ca_file: cannot read certificates from {}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).with_context(unreadable)? {
        // System bundles hold a few that rustls cannot use.
        let _ = roots.add(certificate.with_context(unreadable)?);
    }
    anyhow::ensure!(
        !roots.is_empty(),
        "backplane.ca_file: no usable certificate in {}",
        path.display()
    );
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS could not be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
