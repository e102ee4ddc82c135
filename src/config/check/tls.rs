//! Certificate and key: there, of the right kind, belonging together, and in time. The server would refuse
//! them too, but only once it starts.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::keys::private;
use super::{acme, clients};
use crate::config::Config;
use crate::config::files;
use crate::config::problem::Problem;

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";

/// A certificate that ends sooner is worth a warning: renewal usually happens a month ahead.
const EXPIRY_WARNING_DAYS: i64 = 14;

/// Checks both files, and that they belong together.
pub fn check(config: &Config) -> Vec<Problem> {
    let tls = &config.tls;
    let mut problems = clients::check(tls);
    if config.acme.is_on() {
        problems.extend(acme::check(&config.acme));
        problems.extend(acme::is_alone(tls));
        return problems;
    }
    let leaf = chain(&tls.certificate, &mut problems);
    let key = private_key(&tls.key, &mut problems);
    if let (Some(chain), Some(key)) = (leaf, key) {
        problems.extend(belong(&chain, &key));
    }
    problems
}

/// The DER of each certificate's public key, leaf first; none if the chain is no good.
fn chain(path: &Path, problems: &mut Vec<Problem>) -> Option<Vec<Vec<u8>>> {
    let pem = pem(CERTIFICATE, path, problems)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = match certificates {
        Ok(certificates) if !certificates.is_empty() => certificates,
        Ok(_) => {
            problems.push(wrong_label(CERTIFICATE, path, &pem, "a certificate chain"));
            return None;
        }
        Err(_) => {
            problems.push(Problem::error(
                CERTIFICATE,
                format!("damaged PEM: {}", path.display()),
                "copy the file again, whole",
            ));
            return None;
        }
    };
    let mut public_keys = Vec::new();
    for (index, der) in certificates.iter().enumerate() {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            let what = format!("certificate {} of {} cannot be read", index + 1, path.display());
            problems.push(Problem::error(
                CERTIFICATE,
                what,
                "\"openssl x509 -noout -text -in FILE\" shows what it is",
            ));
            return None;
        };
        if index == 0 {
            problems.extend(in_time(&certificate, path, now_s()));
            problems.extend(names(&certificate, path));
        }
        public_keys.push(certificate.tbs_certificate.subject_pki.raw.to_vec());
    }
    Some(public_keys)
}

fn in_time(certificate: &X509Certificate<'_>, path: &Path, now_s: i64) -> Option<Problem> {
    const DAY_S: i64 = 86_400;
    let validity = certificate.validity();
    let path = path.display();
    if validity.not_before.timestamp() > now_s {
        let what = format!("{path} is not valid before {}", validity.not_before);
        return Some(Problem::error(
            CERTIFICATE,
            what,
            "check the clock of this machine, or wait",
        ));
    }
    let left_s = validity.not_after.timestamp() - now_s;
    let renew = "renew it; a running server takes the new pair by itself";
    if left_s <= 0 {
        return Some(Problem::error(
            CERTIFICATE,
            format!("{path} expired on {}", validity.not_after),
            renew,
        ));
    }
    let what = format!("{path} expires in {} days, on {}", left_s / DAY_S, validity.not_after);
    (left_s < EXPIRY_WARNING_DAYS * DAY_S).then(|| Problem::warning(CERTIFICATE, what, renew))
}

/// DNS names and addresses in the first certificate of a file; none if it cannot be read.
pub fn names_in(path: &Path) -> Option<Vec<String>> {
    let pem = files::read(path).ok()?;
    let leaf = CertificateDer::from_pem_slice(&pem).ok()?;
    crate::net::certificates::pair::Facts::of(&leaf)
        .ok()
        .map(|facts| facts.names)
}

/// Browsers look at these names only (RFC 9110 section 4.3.4), never at the subject.
fn names(certificate: &X509Certificate<'_>, path: &Path) -> Option<Problem> {
    let has_names = matches!(certificate.subject_alternative_name(), Ok(Some(_)));
    (!has_names).then(|| {
        let what = format!(
            "{} has no name in it (subjectAltName): no client accepts it for any host",
            path.display()
        );
        Problem::warning(CERTIFICATE, what, "renew it with the names that clients connect to")
    })
}

/// The DER of the public key that belongs to the private key.
fn private_key(path: &Path, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let pem = pem(KEY, path, problems)?;
    problems.extend(private(KEY, path));
    let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) else {
        problems.push(wrong_label(KEY, path, &pem, "a private key"));
        return None;
    };
    let Ok(signer) = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key) else {
        let what = format!(
            "the private key in {} is damaged or of a kind that TLS does not use",
            path.display()
        );
        problems.push(Problem::error(
            KEY,
            what,
            "use ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits",
        ));
        return None;
    };
    signer.public_key().map(|key: SubjectPublicKeyInfoDer<'_>| key.to_vec())
}

fn belong(chain: &[Vec<u8>], key: &[u8]) -> Option<Problem> {
    let place = chain.iter().position(|certificate| certificate == key);
    match place {
        Some(0) => None,
        Some(_) => {
            let what = "the chain is in the wrong order: the certificate of this key is not the first";
            Some(Problem::error(
                CERTIFICATE,
                what,
                "put the server's own certificate first, then the intermediates",
            ))
        }
        None => {
            let what = format!(
                "the key does not belong to the certificate\n  public key of tls.certificate: SHA-256 {}\n  public key of tls.key:         SHA-256 {}",
                fingerprint(&chain[0]),
                fingerprint(key)
            );
            Some(Problem::error(KEY, what, "name the two files that were made together"))
        }
    }
}

fn pem(key: &'static str, path: &Path, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let remedy = "\"conclave dev\" makes a throw-away certificate; for production ask your certificate authority";
    if path.as_os_str().is_empty() {
        problems.push(Problem::error(
            key,
            "not set",
            "name a PEM file, or set acme.domains; \"conclave config init\" writes a configuration to start from",
        ));
        return None;
    }
    match files::read(path) {
        Ok(bytes) => Some(bytes),
        Err(what) => {
            problems.push(Problem::error(key, what, remedy));
            None
        }
    }
}

/// Names what is in the file instead, by its label and nothing else of it.
fn wrong_label(key: &'static str, path: &Path, pem: &[u8], expected: &str) -> Problem {
    let text = String::from_utf8_lossy(pem);
    let label = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let path = path.display();
    match label {
        Some("ENCRYPTED PRIVATE KEY") => {
            let remedy = "decrypt it, \"openssl pkey -in FILE -out tls.key\", and keep that file private";
            Problem::error(
                key,
                format!("{path} is encrypted, and there is nobody to ask for the passphrase"),
                remedy,
            )
        }
        Some(label) if label.ends_with("PRIVATE KEY") && key == KEY => {
            Problem::error(key, format!("damaged PEM: {path}"), "copy the file again, whole")
        }
        Some(label) => {
            let remedy = "are tls.certificate and tls.key exchanged?";
            Problem::error(key, format!("expected {expected}, found \"{label}\" in {path}"), remedy)
        }
        None => {
            let remedy =
                "it starts with \"-----BEGIN\"; \"openssl x509 -inform DER -in FILE\" turns a DER certificate into one";
            Problem::error(key, format!("expected {expected}, found no PEM in {path}"), remedy)
        }
    }
}

fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since the Unix epoch.
pub fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
