//! Certificates from an authority that is asked for them (ACME, RFC 8555), proven by TLS-ALPN-01 (RFC 8737) on the
//! port where everything else is served.
//!
//! Everything that lasts is in one [`Folder`], which all nodes of the same names share: the account's key, the
//! certificate, the challenges that run. One node orders at a time, any node answers the authority, and each serves
//! what the folder holds ([`Certificates`] watches it as it watches any file).
//!
//! `rustls-acme` asks the authority. It reads its sockets with a reactor thread of its own, which begins with the first
//! order.

mod folder;
mod order;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::Acceptor;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_acme::acme::ACME_TLS_ALPN_NAME;

use crate::config;
use crate::net::SYSTEM_BUNDLES;
use crate::net::certificates::pair::read_certified;
use crate::net::certificates::{CertificateError, Certificates, now_s};
use crate::telemetry::metrics::{AcmeOrder, Metrics};
use folder::Folder;
use order::OrderError;

/// Longest order, from the directory to the certificate.
const ORDER_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_hours(1);
/// How often the clock is compared with the time of renewal, whatever happens.
const LOOK: Duration = Duration::from_mins(10);
/// How soon it is looked again whether another node is through with its order.
const LOOK_OTHERS: Duration = Duration::from_secs(2);

/// One account, one certificate.
pub struct Acme {
    settings: config::Acme,
    folder: Folder,
    authority: Arc<ClientConfig>,
    metrics: Arc<Metrics>,
}

/// What became of a turn.
enum Turn {
    Renewed,
    /// Another node orders.
    TheirTurn,
}

impl Acme {
    /// # Errors
    /// No root to trust the authority's own certificate by, or no folder.
    pub fn new(settings: &config::Acme, metrics: Arc<Metrics>) -> Result<Self, CertificateError> {
        folder::make(&settings.cache_dir).map_err(|error| CertificateError::Read {
            path: settings.cache_dir.clone(),
            error,
        })?;
        Ok(Self {
            folder: Folder::new(&settings.cache_dir, &settings.directory, &settings.domains),
            authority: Arc::new(authority(settings.ca_file.as_deref())?),
            settings: settings.clone(),
            metrics,
        })
    }

    /// Where the certificate is.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The TLS configuration that answers a challenge, if this first flight of a client is one and it is ours.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn challenge(&self, hello: &[u8]) -> Option<Arc<ServerConfig>> {
        let domain = asked_for(hello)?;
        // Names come from outside: only one of ours becomes the name of a file.
        let domain = self.settings.domains.iter().find(|known| **known == domain)?;
        let path = self.folder.challenge(domain);
        let read = tokio::task::spawn_blocking(move || read_certified(&path, &path));
        let certified = match read.await.ok()? {
            Ok(certified) => certified,
            Err(error) => {
                tracing::debug!(%error, domain, "a challenge that nobody here has asked for");
                return None;
            }
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .ok()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ACME_TLS_ALPN_NAME.to_vec()];
        config.send_tls13_tickets = 0;
        Some(Arc::new(config))
    }

    /// Orders a certificate whenever it is time, for as long as the node runs. One that failed leaves the old
    /// certificate in use.
    ///
    /// # Cancel safety
    /// Cancel safe: an order that was given up is begun anew.
    pub async fn keep(&self, certificates: &Arc<Certificates>) {
        let mut pause = self.settings.retry;
        loop {
            if let Some(wait) = until_renewal(certificates) {
                // Never all of it at once: the clock may be set, and another node may renew first.
                tokio::time::sleep(wait.min(LOOK)).await;
                certificates.reload_aside().await;
                continue;
            }
            match self.turn(certificates).await {
                Ok(Turn::Renewed) => pause = self.settings.retry,
                Ok(Turn::TheirTurn) => {
                    tokio::time::sleep(LOOK_OTHERS).await;
                    certificates.reload_aside().await;
                }
                Err(error) => {
                    self.metrics.acme_order(AcmeOrder::Failed);
                    tracing::warn!(
                        error = %error.short(),
                        directory = %self.settings.directory,
                        retry_in_s = pause.as_secs(),
                        not_after_s = certificates.facts().map(|facts| facts.not_after_s),
                        "no certificate from the authority; what is there stays in use"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX.max(self.settings.retry));
                }
            }
        }
    }

    async fn turn(&self, certificates: &Arc<Certificates>) -> Result<Turn, OrderError> {
        let Some(_lock) = self.folder.lock().await? else {
            tracing::debug!("another node orders the certificate");
            return Ok(Turn::TheirTurn);
        };
        // Whoever had the lock before may have renewed it.
        certificates.reload_aside().await;
        if until_renewal(certificates).is_some() {
            return Ok(Turn::Renewed);
        }
        // Authorities give few certificates per week: none is ordered that could not be kept.
        self.folder.probe().await?;
        tracing::info!(domains = ?self.settings.domains, directory = %self.settings.directory, "ordering a certificate");
        let order = order::Order {
            settings: &self.settings,
            folder: &self.folder,
            authority: &self.authority,
        };
        let pem = tokio::time::timeout(ORDER_TIMEOUT, order.run())
            .await
            .map_err(|_| OrderError::Late("the whole order"))??;
        self.folder.store_certificate(pem).await?;
        certificates.reload_aside().await;
        // Or the next one would be ordered without a pause.
        if until_renewal(certificates).is_none() {
            return Err(OrderError::Useless);
        }
        self.metrics.acme_order(AcmeOrder::Ok);
        Ok(Turn::Renewed)
    }
}

/// None: now.
fn until_renewal(certificates: &Certificates) -> Option<Duration> {
    let left_s = certificates.facts()?.renew_at_s() - now_s();
    u64::try_from(left_s)
        .ok()
        .filter(|left_s| *left_s > 0)
        .map(Duration::from_secs)
}

/// The name whose challenge this is: RFC 8737 section 3, one protocol and one name.
fn asked_for(hello: &[u8]) -> Option<String> {
    // Of a million handshakes one is a challenge: the others are not read twice.
    memmem::find(hello, ACME_TLS_ALPN_NAME)?;
    let mut acceptor = Acceptor::default();
    let mut rest = hello;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).ok()? == 0 {
            return None;
        }
    }
    let accepted = acceptor.accept().ok()??;
    let hello = accepted.client_hello();
    let mut protocols = hello.alpn()?;
    let is_challenge = protocols.next() == Some(ACME_TLS_ALPN_NAME) && protocols.next().is_none();
    is_challenge.then(|| hello.server_name().map(str::to_ascii_lowercase))?
}

fn authority(ca_file: Option<&Path>) -> Result<ClientConfig, CertificateError> {
    let system = || SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let path = ca_file.or_else(system).unwrap_or(Path::new(SYSTEM_BUNDLES[0]));
    let pem = crate::net::certificates::pair::read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        // System bundles hold a few that rustls cannot use.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(CertificateError::NoCertificate { path: path.to_owned() });
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[cfg(test)]
mod tests;
