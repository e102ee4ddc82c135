//! Certificates of clients: whose are taken, and how many were. They say which machine this is; who the user is
//! says the token, which is asked for all the same.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError as Flaw, RootCertStore};

use super::pair::{CertificateError, read};
use crate::config::{self, ClientAuth};
use crate::telemetry::metrics::ClientCertificate;

/// Where it is written whose certificates are taken.
#[derive(Debug, Clone)]
pub struct Clients {
    pub mode: ClientAuth,
    ca_file: PathBuf,
    crl_file: Option<PathBuf>,
}

/// What those files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    ca: Vec<u8>,
    crl: Option<Vec<u8>>,
}

impl Clients {
    /// None: clients are not asked.
    pub fn new(tls: &config::Tls) -> Option<Self> {
        (tls.client_auth != ClientAuth::Off).then(|| Self {
            mode: tls.client_auth,
            ca_file: tls.client_ca_file.clone().unwrap_or_default(),
            crl_file: tls.client_crl_file.clone(),
        })
    }

    /// The files that are watched.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.ca_file).chain(&self.crl_file)
    }

    /// # Errors
    /// A file cannot be read.
    pub fn read(&self) -> Result<Trust, CertificateError> {
        Ok(Trust {
            ca: read(&self.ca_file)?,
            crl: self.crl_file.as_deref().map(read).transpose()?,
        })
    }

    /// # Errors
    /// The files hold no authority, or a list that cannot be read.
    pub fn verifier(&self, trust: &Trust) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
        let wrong = |path: &PathBuf, detail: String| CertificateError::Clients {
            path: path.clone(),
            detail,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&trust.ca) {
            let certificate = certificate.map_err(|error| wrong(&self.ca_file, error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(&self.ca_file, error.to_string()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if let (Some(path), Some(pem)) = (&self.crl_file, &trust.crl) {
            let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
            let lists = lists.map_err(|error| wrong(path, error.to_string()))?;
            // A file that was cut off must not bring everybody back who was revoked.
            if lists.is_empty() {
                return Err(wrong(path, "no revocation list in this PEM file".to_owned()));
            }
            // A certificate whose issuer has no list there is refused: nobody could say that it is good.
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        if self.mode == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| wrong(&self.ca_file, error.to_string()))
    }
}

/// What was wrong with the client's certificate, if that is what ended the handshake.
#[must_use]
pub fn refusal(error: &rustls::Error) -> Option<ClientCertificate> {
    match error {
        rustls::Error::NoCertificatesPresented => Some(ClientCertificate::Missing),
        // Of all certificates only clients' are verified by a server.
        rustls::Error::InvalidCertificate(flaw) => Some(match flaw {
            Flaw::Expired | Flaw::ExpiredContext { .. } | Flaw::NotValidYet | Flaw::NotValidYetContext { .. } => {
                ClientCertificate::Expired
            }
            Flaw::Revoked => ClientCertificate::Revoked,
            Flaw::UnknownRevocationStatus => ClientCertificate::Unlisted,
            Flaw::UnknownIssuer => ClientCertificate::UnknownIssuer,
            _ => ClientCertificate::Bad,
        }),
        _ => None,
    }
}
