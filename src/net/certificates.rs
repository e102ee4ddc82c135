//! The certificate: read, checked against its key, swapped for new handshakes, watched for change.
//!
//! There is one `ServerConfig` and one ticket key for all shards; the certificate is looked up per handshake,
//! so a swap touches no open connection. With [`acme`](super::acme) the certificate is a file too: that of the folder
//! which the orders fill.

pub mod clients;
pub mod pair;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::http::health::Health;
use crate::net::acme::Acme;
use crate::runtime::{Tasks, now_ms};
use crate::telemetry::metrics::{Metrics, Reload};
use clients::{Clients, Trust};
pub use pair::CertificateError;
use pair::{Facts, Pair};

/// Changes in a folder come in bursts (a secret volume swaps a symlink and removes the old folder): wait for
/// the end of one before reading.
const SETTLE: Duration = Duration::from_millis(250);
/// A certificate that ends sooner is spoken of each day.
const EXPIRY_WARNING_S: i64 = 14 * DAY_S;
const DAY_S: i64 = 86_400;
/// Why a node without a certificate is not ready.
const NO_CERTIFICATE: &str = "no certificate yet";

/// The current certificate and the TLS configuration around it.
pub struct Certificates {
    /// None until the first order of a new name is through.
    current: Arc<ArcSwapOption<Pair>>,
    /// Made anew when the authorities of clients change.
    server_config: ArcSwap<ServerConfig>,
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<Clients>,
    acme: Option<Arc<Acme>>,
    poll: Duration,
    /// Cancelled once there is a certificate.
    loaded: CancellationToken,
    /// What `server_config` trusts. One reload at a time: the watch, a signal and an order may ask at once.
    trusted: Mutex<Option<Trust>>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// # Errors
    /// The pair cannot be served; nothing is kept then. That there is none yet is no error with ACME.
    pub fn load(config: &Config, metrics: Arc<Metrics>) -> Result<Self, CertificateError> {
        let tls = &config.tls;
        let acme = if config.acme.is_on() {
            Some(Arc::new(Acme::new(&config.acme, Arc::clone(&metrics))?))
        } else {
            None
        };
        let (certificate, key) = match &acme {
            Some(acme) => (acme.folder().certificate(), acme.folder().certificate()),
            None => (tls.certificate.clone(), tls.key.clone()),
        };
        let clients = Clients::new(tls);
        let trust = clients.as_ref().map(Clients::read).transpose()?;
        let current = Arc::new(ArcSwapOption::empty());
        let server_config = server_config(&current, clients.as_ref().zip(trust.as_ref()))?;
        let certificates = Self {
            current,
            server_config: ArcSwap::from_pointee(server_config),
            certificate,
            key,
            clients,
            acme,
            poll: tls.reload_poll,
            loaded: CancellationToken::new(),
            trusted: Mutex::new(trust),
            metrics,
        };
        match Pair::read(&certificates.certificate, &certificates.key) {
            Ok(pair) => certificates.take(pair, "certificate loaded"),
            Err(error) if certificates.acme.is_some() && error.is_not_found() => {
                tracing::info!("no certificate yet, one is ordered");
            }
            Err(error) if certificates.acme.is_some() => {
                tracing::warn!(%error, "the certificate in acme.cache_dir cannot be served, another one is ordered");
            }
            Err(error) => return Err(error),
        }
        Ok(certificates)
    }

    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.load_full()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.loaded.is_cancelled()
    }

    /// Whether clients are asked for a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Who answers an authority's challenges.
    #[must_use]
    pub fn acme(&self) -> Option<&Acme> {
        self.acme.as_deref()
    }

    /// Whether `host` (without port, any case) is a name of the current certificate.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|pair| pair.facts.names_host(host))
    }

    /// What is known of the current certificate.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        self.current.load().as_ref().map(|pair| pair.facts.clone())
    }

    /// Reads the files again. What is there stays when the new one is bad, and that is said and counted.
    pub fn reload(&self) {
        let mut trusted = self.trusted.lock();
        match Pair::read(&self.certificate, &self.key) {
            Ok(pair) if self.serves(&pair) => {}
            Ok(pair) => {
                self.metrics.tls_reload(Reload::Ok);
                self.take(pair, "certificate reloaded");
            }
            // The first order is still to come.
            Err(error) if self.acme.is_some() && self.is_empty() && error.is_not_found() => {}
            Err(error) => {
                self.metrics.tls_reload(Reload::Failed);
                tracing::warn!(%error, "certificate not reloaded, the old one stays in use");
            }
        }
        if let Err(error) = self.reload_clients(&mut trusted) {
            self.metrics.tls_reload(Reload::Failed);
            tracing::warn!(%error, "authorities of clients not reloaded, the old ones stay in use");
        }
    }

    fn serves(&self, pair: &Pair) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|current| current.certified.cert == pair.certified.cert)
    }

    fn take(&self, pair: Pair, what: &'static str) {
        let facts = &pair.facts;
        self.metrics.certificate_expiry(facts.not_after_s as f64);
        tracing::info!(
            subject = %facts.subject,
            issuer = %facts.issuer,
            serial = %facts.serial,
            names = ?facts.names,
            not_after_s = facts.not_after_s,
            days_left = (facts.not_after_s - now_s()) / DAY_S,
            "{what}"
        );
        self.current.store(Some(Arc::new(pair)));
        self.loaded.cancel();
    }

    fn reload_clients(&self, trusted: &mut Option<Trust>) -> Result<(), CertificateError> {
        let Some(clients) = &self.clients else { return Ok(()) };
        let trust = clients.read()?;
        if trusted.as_ref() == Some(&trust) {
            return Ok(());
        }
        let config = server_config(&self.current, Some((clients, &trust)))?;
        self.server_config.store(Arc::new(config));
        *trusted = Some(trust);
        self.metrics.tls_reload(Reload::Ok);
        tracing::info!("authorities of clients reloaded");
        Ok(())
    }

    /// Keeps the certificate fresh for as long as the node runs. Without one the node is not ready.
    pub fn keep(self: &Arc<Self>, tasks: &Tasks, health: &Health) {
        self.watch(tasks);
        let Some(acme) = &self.acme else { return };
        if self.is_empty() {
            health.fail(NO_CERTIFICATE);
            let (loaded, health) = (self.loaded.clone(), health.clone());
            tasks.spawn("first certificate", async move {
                loaded.cancelled().await;
                health.ok(NO_CERTIFICATE);
            });
        }
        let (acme, this) = (Arc::clone(acme), Arc::clone(self));
        tasks.spawn("acme", async move { acme.keep(&this).await });
    }

    /// Reloads when the folders of the files change, and every `tls.reload_poll`.
    ///
    /// Folders, not files: secret volumes swap a symlink beside the file, and a watch on the file itself
    /// goes blind then.
    fn watch(self: &Arc<Self>, tasks: &Tasks) {
        let (changed, mut changes) = tokio::sync::mpsc::channel::<()>(1);
        let watcher = self.watch_folders(changed);
        let this = Arc::clone(self);
        tasks.spawn("certificates", async move {
            let _watcher = watcher;
            let mut warned = None;
            loop {
                this.warn_of_expiry(&mut warned);
                // Each branch only wakes us: what it says is read from the files.
                tokio::select! {
                    Some(()) = changes.recv() => tokio::time::sleep(SETTLE).await,
                    () = tokio::time::sleep(this.poll) => {}
                }
                this.reload_aside().await;
            }
        });
    }

    /// As [`Certificates::reload`], on a thread of its own: files on a network volume may be slow, and nothing else
    /// must wait for them.
    pub async fn reload_aside(self: &Arc<Self>) {
        let this = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || this.reload()).await);
    }

    /// Whoever reads logs and no metrics is told once a day.
    fn warn_of_expiry(&self, warned: &mut Option<Instant>) {
        let is_due = warned.is_none_or(|at| at.elapsed().as_secs() >= DAY_S.unsigned_abs());
        let Some(facts) = self.facts().filter(|_| is_due) else {
            return;
        };
        let left_s = facts.not_after_s - now_s();
        // Short certificates are renewed late, and that is in order.
        if left_s < EXPIRY_WARNING_S.min((facts.not_after_s - facts.not_before_s) / 4) {
            *warned = Some(Instant::now());
            tracing::warn!(
                subject = %facts.subject,
                serial = %facts.serial,
                not_after_s = facts.not_after_s,
                days_left = left_s / DAY_S,
                "the certificate expires soon: renew it, the files are read again by themselves"
            );
        }
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
        let own = [&self.certificate, &self.key];
        for file in own.into_iter().chain(self.clients.iter().flat_map(Clients::files)) {
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

/// Seconds since the Unix epoch.
pub(super) fn now_s() -> i64 {
    i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct Resolver(Arc<ArcSwapOption<Pair>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|pair| Arc::clone(&pair.certified))
    }
}

fn server_config(
    current: &Arc<ArcSwapOption<Pair>>,
    clients: Option<(&Clients, &Trust)>,
) -> Result<ServerConfig, CertificateError> {
    let asks = clients.is_some();
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Some((clients, trust)) => clients.verifier(trust)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Resolver(Arc::clone(current))));
    // Never `http1_only()` on the builder instead: that turns upgrades off.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if asks {
        // A ticket would bring back a certificate that has expired or was revoked since: each handshake is a whole one.
        config.send_tls13_tickets = 0;
    } else {
        // Stateless tickets, one per handshake: nothing is kept per client.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
    }
    Ok(config)
}
