//! A certificate with its key: read from PEM, checked against each other, described for people.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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
    #[error("{path}: whose certificates of clients are good cannot be told: {detail}")]
    Clients { path: PathBuf, detail: String },
    #[error("tls setup: {0}")]
    Setup(#[from] rustls::Error),
}

impl CertificateError {
    /// Whether there simply is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// What people and alerts want to know of a certificate.
#[derive(Debug, Clone)]
pub struct Facts {
    /// DNS names and addresses, lower case; a wildcard as `*.example.com`.
    pub names: Vec<String>,
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal, as authorities and `openssl x509 -serial` print it.
    pub serial: String,
    /// Seconds since the Unix epoch.
    pub not_before_s: i64,
    pub not_after_s: i64,
}

impl Facts {
    /// Of the certificate that a DER holds.
    ///
    /// # Errors
    /// It is none.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Self, CertificateError> {
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
        Ok(Self {
            names,
            subject: leaf.subject().to_string(),
            issuer: leaf.issuer().to_string(),
            serial: format!("{:X}", leaf.serial),
            not_before_s: leaf.validity().not_before.timestamp(),
            not_after_s: leaf.validity().not_after.timestamp(),
        })
    }

    /// When two thirds of its time are over: a third is left for whatever may go wrong.
    pub fn renew_at_s(&self) -> i64 {
        self.not_after_s - (self.not_after_s - self.not_before_s) / 3
    }

    /// Whether `host` (without port, any case) is one of its names.
    pub fn names_host(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => *name == host,
        })
    }
}

fn address_text(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// A certificate with its key, ready to serve, and what is asked about it.
#[derive(Debug)]
pub struct Pair {
    pub certified: Arc<CertifiedKey>,
    pub facts: Facts,
}

impl Pair {
    /// Both may be in one file.
    ///
    /// # Errors
    /// The pair cannot be served.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let certified = read_certified(certificate, key)?;
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertificateError::Mismatch),
        }
        Ok(Self {
            facts: Facts::of(&certified.cert[0])?,
            certified: Arc::new(certified),
        })
    }
}

/// Chain and key, not compared: the certificate of an ACME challenge has an extension that the comparison does not
/// know.
///
/// # Errors
/// A file is not there, or holds something else.
pub fn read_certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let chain = read_chain(certificate)?;
    let key_der = read_key(key)?;
    let signer =
        aws_lc_rs::sign::any_supported_type(&key_der).map_err(|_| CertificateError::Key { path: key.to_owned() })?;
    Ok(CertifiedKey::new(chain, signer))
}

/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
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
