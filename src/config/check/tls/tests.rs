use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::config::{Severity, default_config};

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("directory"))
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        path
    }

    fn check(&self, certificate: &str, key: &str) -> Vec<Problem> {
        let mut config = default_config();
        (config.tls.certificate, config.tls.key) = (self.write("tls.crt", certificate), self.write("tls.key", key));
        check(&config)
    }
}

/// A self-signed certificate and its key, valid until the given year.
fn pair_until(year: i32) -> (String, String) {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    (
        params.self_signed(&key).expect("certificate").pem(),
        key.serialize_pem(),
    )
}

fn pair() -> (String, String) {
    pair_until(2100)
}

#[track_caller]
fn expect(problems: &[Problem], expected: &[(&str, &str)]) {
    let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (text, (key, what)) in found.iter().zip(expected) {
        assert!(
            text.contains(key) && text.contains(what),
            "expected {key}: {what}\nfound {text}"
        );
    }
}

#[test]
fn a_good_pair_passes() {
    let (certificate, key) = pair();
    expect(&Files::new().check(&certificate, &key), &[]);
}

#[test]
fn files_that_are_missing_or_unset_are_named() {
    let mut config = default_config();
    expect(&check(&config), &[(CERTIFICATE, "not set"), (KEY, "not set")]);
    (config.tls.certificate, config.tls.key) = ("/nowhere/tls.crt".into(), "/".into());
    expect(
        &check(&config),
        &[
            (CERTIFICATE, "file not found: /nowhere/tls.crt"),
            (KEY, "a directory, not a file: /"),
        ],
    );
}

#[test]
fn exchanged_files_are_named_by_their_label() {
    let (certificate, key) = pair();
    let problems = Files::new().check(&key, &certificate);
    expect(
        &problems,
        &[(CERTIFICATE, "found \"PRIVATE KEY\""), (KEY, "found \"CERTIFICATE\"")],
    );
    assert!(problems[0].remedy.contains("exchanged"));
}

#[test]
fn what_is_no_pem_is_told() {
    let (certificate, key) = pair();
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let not_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (certificate, key, expected) in [
        ("", key.as_str(), (CERTIFICATE, "found no PEM")),
        ("\u{0}\u{1}", &key, (CERTIFICATE, "found no PEM")),
        (&cut(&certificate), &key, (CERTIFICATE, "damaged PEM")),
        (not_der, &key, (CERTIFICATE, "certificate 1 of")),
        (&certificate, "", (KEY, "found no PEM")),
        (&certificate, &cut(&key), (KEY, "damaged PEM")),
        (&certificate, encrypted, (KEY, "is encrypted")),
        (&certificate, not_key, (KEY, "of a kind that TLS does not use")),
    ] {
        expect(&Files::new().check(certificate, key), &[expected]);
    }
}

#[test]
fn a_foreign_key_is_told_with_both_fingerprints() {
    let (certificate, own) = pair();
    let (_, foreign) = pair();
    let problems = Files::new().check(&certificate, &foreign);
    expect(&problems, &[(KEY, "does not belong")]);
    assert_eq!(problems[0].what.matches("SHA-256 ").count(), 2);
    assert!(
        !problems[0]
            .what
            .contains(own.lines().nth(1).expect("a line of the key"))
    );
}

#[test]
fn a_chain_in_the_wrong_order_is_told() {
    let (leaf, key) = pair();
    let (issuer, _) = pair();
    expect(&Files::new().check(&format!("{leaf}{issuer}"), &key), &[]);
    expect(
        &Files::new().check(&format!("{issuer}{leaf}"), &key),
        &[(CERTIFICATE, "wrong order")],
    );
}

#[test]
fn an_expired_certificate_is_refused_and_one_about_to_expire_is_a_warning() {
    let (expired, key) = pair_until(2021);
    expect(&Files::new().check(&expired, &key), &[(CERTIFICATE, "expired on")]);

    let (pem, _) = pair_until(2030);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("pem");
    let (_, certificate) = X509Certificate::from_der(&der).expect("certificate");
    let (start_s, end_s) = (
        certificate.validity().not_before.timestamp(),
        certificate.validity().not_after.timestamp(),
    );
    let at = |now_s| in_time(&certificate, Path::new("tls.crt"), now_s);
    assert!(at(start_s - 1).expect("early").what.contains("not valid before"));
    assert_eq!(at(end_s - 15 * 86_400), None);
    let soon = at(end_s - 3 * 86_400 - 5).expect("soon");
    assert_eq!(soon.severity, Severity::Warning);
    assert!(soon.what.contains("in 3 days"), "{}", soon.what);
    assert_eq!(at(end_s).expect("over").severity, Severity::Error);
}

#[test]
fn a_key_that_everybody_can_read_is_a_warning() {
    let files = Files::new();
    let (certificate, key) = pair();
    let mut config = default_config();
    (config.tls.certificate, config.tls.key) = (files.write("tls.crt", &certificate), files.write("tls.key", &key));
    for (mode, expected) in [(0o600, None), (0o640, Some("its group")), (0o644, Some("every user"))] {
        std::fs::set_permissions(&config.tls.key, PermissionsExt::from_mode(mode)).expect("mode");
        let problems = check(&config);
        if let (Some(problem), Some(who)) = (problems.first(), expected) {
            assert!(problem.what.contains(who), "{problem}");
        }
        assert_eq!(
            problems.first().map(|problem| problem.severity),
            expected.map(|_| Severity::Warning),
            "{mode:o}"
        );
    }
}

#[test]
fn a_certificate_without_names_is_one_that_nobody_accepts() {
    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(Vec::<String>::new()).expect("params");
    let certificate = params.self_signed(&key).expect("certificate").pem();
    expect(
        &Files::new().check(&certificate, &key.serialize_pem()),
        &[(CERTIFICATE, "no name in it")],
    );
}
