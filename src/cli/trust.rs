//! Which certificates a client of ours trusts, for `bench` and `probe`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Environment, Failure, dev};
use crate::net::SYSTEM_BUNDLES;

/// The authorities of `chosen`; without it those of `conclave dev` for a server that is `here`, else the system's.
pub fn roots(chosen: Option<&Path>, here: bool, environment: &Environment) -> Result<RootCertStore, Failure> {
    let system = || SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = match chosen {
        Some(path) => path.to_owned(),
        None => here.then(|| dev::authority(environment)).flatten().or_else(system).ok_or_else(|| {
            Failure::usage(
                "no certificate authority to trust\n  help: pass --ca FILE, or --insecure to accept any certificate",
            )
        })?,
    };
    let shown = path.display();
    let unreadable = || format!("cannot read certificates from {shown}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).with_context(unreadable)? {
        // System bundles hold a few that rustls cannot use.
        let _ = roots.add(certificate.with_context(unreadable)?);
    }
    if roots.is_empty() {
        Err(Failure::other(format_args!("no usable certificate in {shown}")))
    } else {
        Ok(roots)
    }
}

/// `--insecure`: the signature is still checked, the name and the chain are not.
#[derive(Debug)]
pub struct AcceptAny(Arc<CryptoProvider>);

impl AcceptAny {
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
