//! Certificates of clients: there is an authority for them, and its lists can be read and are of today.

use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::acme::authorities;
use super::tls::now_s;
use crate::config::files;
use crate::config::problem::Problem;
use crate::config::{ClientAuth, Tls};

const AUTH: &str = "tls.client_auth";
const CA: &str = "tls.client_ca_file";
const CRL: &str = "tls.client_crl_file";

/// Checks `tls.client_*`.
pub fn check(tls: &Tls) -> Vec<Problem> {
    if tls.client_auth == ClientAuth::Off {
        let unread = [(CA, &tls.client_ca_file), (CRL, &tls.client_crl_file)];
        let unread = unread.into_iter().filter(|(_, file)| file.is_some());
        return unread
            .map(|(key, _)| {
                Problem::warning(
                    key,
                    "not looked at: tls.client_auth is off, and no client is asked for a certificate",
                    "set tls.client_auth to \"required\" or \"optional\", or leave this out",
                )
            })
            .collect();
    }
    let mut problems = Vec::new();
    match &tls.client_ca_file {
        Some(path) => problems.extend(authorities(CA, path)),
        None => problems.push(Problem::error(
            AUTH,
            "no tls.client_ca_file: nobody says whose certificates are good",
            "name the PEM file of the authority that signs your clients' certificates",
        )),
    }
    if tls.client_auth == ClientAuth::Optional {
        problems.push(Problem::warning(
            AUTH,
            "\"optional\" keeps nobody out: who shows no certificate comes in with a token alone",
            "use \"required\" once every client has one; meanwhile watch conclave_client_certificates_total",
        ));
    }
    problems.extend(tls.client_crl_file.iter().flat_map(|path| lists(path, now_s())));
    problems
}

fn lists(path: &Path, now_s: i64) -> Vec<Problem> {
    let pem = match files::read(path) {
        Ok(pem) => pem,
        Err(what) => return vec![Problem::error(CRL, what, "put the file there, or correct the path")],
    };
    let ders: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let no_lists = || {
        let what = format!("no PEM revocation lists: {}", path.display());
        let remedy = "\"openssl crl -inform DER -in FILE -out crl.pem\" turns a DER list into one";
        vec![Problem::error(CRL, what, remedy)]
    };
    let Ok(ders) = ders else { return no_lists() };
    if ders.is_empty() {
        return no_lists();
    }
    let mut problems = Vec::new();
    for der in &ders {
        match CertificateRevocationList::from_der(der) {
            Ok((_, list)) if list.next_update().is_some_and(|next| next.timestamp() < now_s) => {
                let what = format!(
                    "the list of {} is out of date: who was revoked since comes in",
                    list.issuer()
                );
                problems.push(Problem::warning(
                    CRL,
                    what,
                    "fetch it anew; a running server reads it by itself",
                ));
            }
            Ok(_) => {}
            Err(_) => return no_lists(),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Severity, default_config};

    fn problems(change: impl FnOnce(&mut Tls)) -> Vec<(Severity, String)> {
        let mut tls = default_config().tls;
        change(&mut tls);
        let found = check(&tls).into_iter();
        found
            .map(|problem| (problem.severity, format!("{}: {}", problem.key, problem.what)))
            .collect()
    }

    #[test]
    fn off_looks_at_nothing_and_says_so() {
        assert_eq!(problems(|_| ()), []);
        let found = problems(|tls| tls.client_ca_file = Some("ca.crt".into()));
        assert!(
            found[0].0 == Severity::Warning && found[0].1.contains("is off"),
            "{found:?}"
        );
    }

    #[test]
    fn an_authority_is_needed_and_files_are_read() {
        let place = tempfile::tempdir().expect("directory");
        let found = problems(|tls| tls.client_auth = ClientAuth::Required);
        assert!(
            found[0].0 == Severity::Error && found[0].1.contains("no tls.client_ca_file"),
            "{found:?}"
        );
        let file = place.path().join("x.pem");
        std::fs::write(&file, "garbage").expect("write");
        let found = problems(|tls| {
            tls.client_auth = ClientAuth::Optional;
            tls.client_ca_file = Some(file.clone());
            tls.client_crl_file = Some(file.clone());
        });
        assert!(found[0].1.contains("no PEM certificates"), "{found:?}");
        assert!(found[1].1.contains("keeps nobody out"), "{found:?}");
        assert!(found[2].1.contains("no PEM revocation lists"), "{found:?}");
    }
}
