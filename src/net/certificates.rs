//! The certificate: read, checked against its key, swapped for new handshakes, watched for change.
//!
//! There is one `ServerConfig` and one ticket key for all shards; the certificate is looked up per handshake,
//! so a swap touches no open connection.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config;
use crate::runtime::{Tasks, supervisor};
use crate::telemetry::metrics::{Metrics, Reload};

/// Changes in a folder come in bursts (a secret volume swaps a symlink and removes the old folder): wait for
/// the end of one before reading.
const SETTLE: Duration = Duration::from_millis(250);

/// Why a certificate cannot be served. No variant shows a byte of the key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path}: no certificate in this PEM file")]
    NoCertificate { path: PathBuf },
    #[error("{path}: not PEM: {detail}")]
    Pem { path: PathBuf, detail: String },
    #[error("{path}: not a usable private key")]
    Key { path: PathBuf },
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("tls setup: {0}")]
    Setup(#[from] rustls::Error),
}

/// A certificate with its key, ready to serve, and what is asked about it.
#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    /// Its DNS names and addresses, lower case; a wildcard as `*.example.com`.
    names: Vec<String>,
    not_after: i64,
}

impl Pair {
    fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let chain = read_chain(certificate)?;
        let key_der = read_key(key)?;
        let signer = aws_lc_rs::sign::any_supported_type(&key_der)
            .map_err(|_| CertificateError::Key { path: key.to_owned() })?;
        let (names, not_after) = describe(&chain[0])?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertificateError::Mismatch),
        }
        Ok(Self {
            certified: Arc::new(certified),
            names,
            not_after,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|error| CertificateError::Read {
        path: path.to_owned(),
        error,
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(CertificateError::NoCertificate { path: path.to_owned() }),
        Ok(chain) => Ok(chain),
        Err(error) => Err(CertificateError::Pem {
            path: path.to_owned(),
            detail: error.to_string(),
        }),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| CertificateError::Key { path: path.to_owned() })
}

fn describe(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, i64), CertificateError> {
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = leaf.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(address_text(bytes)),
                _ => {}
            }
        }
    }
    Ok((names, leaf.validity().not_after.timestamp()))
}

fn address_text(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// The current certificate and the TLS configuration around it.
pub struct Certificates {
    current: Arc<ArcSwap<Pair>>,
    server_config: Arc<ServerConfig>,
    certificate: PathBuf,
    key: PathBuf,
    poll: Duration,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// # Errors
    /// The pair cannot be served; nothing is kept then.
    pub fn load(tls: &config::Tls, metrics: Arc<Metrics>) -> Result<Self, CertificateError> {
        let pair = Pair::read(&tls.certificate, &tls.key)?;
        metrics.certificate_expiry(pair.not_after as f64);
        let current = Arc::new(ArcSwap::from_pointee(pair));
        let server_config = server_config(Arc::new(Resolver(Arc::clone(&current))))?;
        Ok(Self {
            current,
            server_config: Arc::new(server_config),
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            poll: tls.reload_poll,
            metrics,
        })
    }

    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server_config)
    }

    /// Whether `host` (without port, any case) is a name of the current certificate.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.current
            .load()
            .names
            .iter()
            .any(|name| match name.strip_prefix("*.") {
                Some(parent) => host
                    .split_once('.')
                    .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
                None => *name == host,
            })
    }

    /// Reads the files again. The old pair stays when the new one is bad, and that is said and counted.
    pub fn reload(&self) {
        let pair = match Pair::read(&self.certificate, &self.key) {
            Ok(pair) => pair,
            Err(error) => {
                self.metrics.tls_reload(Reload::Failed);
                tracing::warn!(%error, "certificate not reloaded, the old one stays in use");
                return;
            }
        };
        if pair.certified.cert == self.current.load().certified.cert {
            return;
        }
        self.metrics.certificate_expiry(pair.not_after as f64);
        self.metrics.tls_reload(Reload::Ok);
        tracing::info!(not_after_s = pair.not_after, names = ?pair.names, "certificate reloaded");
        self.current.store(Arc::new(pair));
    }

    /// Reloads when the folders of the files change, on SIGHUP, and every `tls.reload_poll`.
    ///
    /// Folders, not files: secret volumes swap a symlink beside the file, and a watch on the file itself
    /// goes blind then.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks) {
        let (changed, mut changes) = tokio::sync::mpsc::channel::<()>(1);
        let watcher = self.watch_folders(changed);
        let this = Arc::clone(self);
        tasks.spawn("certificates", async move {
            let _watcher = watcher;
            let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
            loop {
                let hung_up = async {
                    match &mut hangup {
                        Some(signal) => signal.recv().await,
                        None => std::future::pending().await,
                    }
                };
                // Each branch only wakes us: what it says is read from the files.
                let is_asked = tokio::select! {
                    _ = hung_up => true,
                    Some(()) = changes.recv() => {
                        tokio::time::sleep(SETTLE).await;
                        false
                    }
                    () = tokio::time::sleep(this.poll) => false,
                };
                if is_asked {
                    supervisor::reloading();
                    tracing::info!("SIGHUP: reading the certificate again");
                }
                let files = Arc::clone(&this);
                // Files on a network volume may be slow; the runtime of a shard must not wait for them.
                drop(tokio::task::spawn_blocking(move || files.reload()).await);
                if is_asked {
                    supervisor::reloaded();
                }
            }
        });
    }

    fn watch_folders(&self, changed: tokio::sync::mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        use notify::Watcher;
        let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // Full means that a reload is due already.
                let _ = changed.try_send(());
            }
        });
        let mut watcher = made
            .inspect_err(|error| tracing::warn!(%error, "files are not watched, only polled"))
            .ok()?;
        for file in [&self.certificate, &self.key] {
            let folder = match file.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            if let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "folder is not watched, only polled");
            }
        }
        Some(watcher)
    }
}

#[derive(Debug)]
struct Resolver(Arc<ArcSwap<Pair>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }
}

fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    // Never `http1_only()` on the builder instead: that turns upgrades off.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Stateless tickets, one per handshake: nothing is kept per client.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(config)
}
