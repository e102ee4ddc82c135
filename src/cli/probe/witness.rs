//! Checks a server's certificate as any client does, and remembers what was shown, also when it is refused.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::stage::Certificate;
use crate::cli::trust::AcceptAny;

/// Names of a certificate that are shown.
const NAMES_MAX: usize = 8;

/// A verifier that looks closely.
#[derive(Debug)]
pub struct Witness {
    inner: Arc<dyn ServerCertVerifier>,
    verifies: bool,
    seen: Mutex<Option<Certificate>>,
}

impl Witness {
    /// Trusts these authorities; with none, everybody.
    pub fn new(roots: Option<RootCertStore>, provider: &Arc<CryptoProvider>) -> Result<Arc<Self>, String> {
        let verifies = roots.is_some();
        let inner: Arc<dyn ServerCertVerifier> = match roots {
            Some(roots) => WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| error.to_string())?,
            None => Arc::new(AcceptAny::new(Arc::clone(provider))),
        };
        Ok(Arc::new(Self {
            inner,
            verifies,
            seen: Mutex::default(),
        }))
    }

    /// What was shown, if it came to that.
    pub fn seen(&self) -> Option<Certificate> {
        self.seen.lock().clone()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Some(mut shown) = describe(end_entity, intermediates) {
            shown.verified = self.verifies && verified.is_ok();
            *self.seen.lock() = Some(shown);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn describe(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|found| &found.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    let ends = |der: &CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(parsed.validity().not_after.timestamp())
    };
    // A chain holds until the first of its certificates ends.
    let first_end = others.iter().filter_map(ends).min();
    let not_after = parsed.validity().not_after.timestamp();
    let issuer = parsed.issuer();
    let common = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    Some(Certificate {
        names: names.take(NAMES_MAX).collect(),
        issuer: common.map_or_else(|| issuer.to_string(), str::to_owned),
        not_after: first_end.map_or(not_after, |end| end.min(not_after)),
        not_before: parsed.validity().not_before.timestamp(),
        verified: false,
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|four| std::net::Ipv4Addr::from(four).to_string());
    let six = || <[u8; 16]>::try_from(bytes).map(|six| std::net::Ipv6Addr::from(six).to_string());
    four.or_else(|_| six()).ok()
}
