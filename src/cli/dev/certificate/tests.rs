use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use super::*;

fn state(directory: &tempfile::TempDir) -> State {
    State::open(directory.path().join("state")).unwrap()
}

fn read(path: &PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn is_reused_private_and_trusted_for_localhost_only() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let made = prepare(&state(&directory), now).unwrap();
    let (leaf, authority) = (read(&made.certificate), read(&made.authority));
    let again = prepare(&state(&directory), now).unwrap();
    assert_eq!(
        (read(&again.certificate), read(&again.authority)),
        (leaf.clone(), authority.clone())
    );
    assert_eq!(made.fingerprint, again.fingerprint);
    assert_eq!(made.fingerprint.len(), 95);

    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("state")), 0o700);
    for file in std::fs::read_dir(directory.path().join("state")).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let leaf = CertificateDer::from_pem_slice(&leaf).unwrap();
    let accepts = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], UnixTime::now())
            .is_ok()
    };
    assert!(accepts("localhost") && accepts("127.0.0.1") && accepts("::1"));
    assert!(!accepts("example.com"));
}

#[test]
fn the_leaf_is_renewed_before_it_expires_and_the_authority_stays() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let made = prepare(&state(&directory), now).unwrap();
    let (leaf, authority) = (read(&made.certificate), read(&made.authority));
    prepare(&state(&directory), now + DAY * 360).unwrap();
    assert_eq!(read(&made.certificate), leaf, "36 days are left");
    prepare(&state(&directory), now + DAY * 367).unwrap();
    assert_ne!(read(&made.certificate), leaf, "29 days are left");
    assert_eq!(read(&made.authority), authority);
    prepare(&state(&directory), now + DAY * 3_400).unwrap();
    assert_ne!(read(&made.authority), authority);
}

#[test]
fn what_is_unreadable_or_does_not_fit_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let made = prepare(&state(&directory), now).unwrap();
    for broken in [&made.certificate, &made.key, &made.authority] {
        let before = read(&made.certificate);
        std::fs::write(broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        prepare(&state(&directory), now).unwrap();
        assert_ne!(read(&made.certificate), before, "{}", broken.display());
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&made.key, &other).unwrap();
    prepare(&state(&directory), now).unwrap();
    assert_ne!(read(&made.key), other.as_bytes());
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let Err(error) = State::open(directory.path().to_owned()) else {
        panic!("accepted")
    };
    assert!(error.to_string().contains("CONCLAVE_STATE_DIR"));
}
