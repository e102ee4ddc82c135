//! Which authorities vouch for whom we call.

use std::path::Path;

use anyhow::{Context, bail};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::net::SYSTEM_BUNDLES;

/// Those of a PEM file, and no others.
pub(super) fn of_file(path: &Path) -> anyhow::Result<RootCertStore> {
    let shown = path.display();
    let pem = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.with_context(|| format!("{shown} is not PEM"))?;
        roots
            .add(certificate)
            .with_context(|| format!("{shown} holds a certificate that cannot be used"))?;
    }
    if roots.is_empty() {
        bail!("{shown} holds no certificate");
    }
    Ok(roots)
}

/// The system's; none where it has none, so that nobody is trusted who speaks TLS.
pub(super) fn of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let bundle = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
    for certificate in CertificateDer::pem_slice_iter(&bundle.unwrap_or_default()).flatten() {
        // System bundles hold a few that rustls cannot use.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        tracing::warn!(
            "this system has no root certificates ({}): an https:// URL needs a CA file of its own",
            SYSTEM_BUNDLES.join(", ")
        );
    }
    roots
}
