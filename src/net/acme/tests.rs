use super::*;

fn hello(name: &str, protocols: &[&[u8]]) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_challenge_is_one_protocol_and_one_name() {
    let acme: &[u8] = b"acme-tls/1";
    assert_eq!(
        asked_for(&hello("Rooms.example.com", &[acme])).as_deref(),
        Some("rooms.example.com")
    );
    assert_eq!(asked_for(&hello("rooms.example.com", &[acme, b"h2"])), None);
    assert_eq!(asked_for(&hello("rooms.example.com", &[b"h2", acme])), None);
    assert_eq!(asked_for(&hello("rooms.example.com", &[b"h2"])), None);
    assert_eq!(asked_for(&hello("192.0.2.1", &[acme])), None, "no name");
    let whole = hello("rooms.example.com", &[acme]);
    for end in 0..whole.len() {
        assert_eq!(asked_for(&whole[..end]), None, "cut at {end}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        // Whatever it is then, it is read without a panic.
        let _ = asked_for(&changed);
    }
}

#[tokio::test]
async fn files_are_private_and_told_apart_by_directory_and_names() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let folder = Folder::new(place.path(), "https://a.test/dir", &names(&["a.test", "b.test"]));
    let same = Folder::new(place.path(), "https://a.test/dir", &names(&["b.test", "a.test"]));
    assert_eq!(folder.certificate(), same.certificate());
    for other in [
        Folder::new(
            place.path(),
            "https://staging.a.test/dir",
            &names(&["a.test", "b.test"]),
        ),
        Folder::new(place.path(), "https://a.test/dir", &names(&["a.test"])),
    ] {
        assert_ne!(folder.certificate(), other.certificate());
    }
    let first = folder.account_key(|| b"one".to_vec()).await.unwrap();
    assert_eq!(
        (
            first.as_slice(),
            folder.account_key(|| b"two".to_vec()).await.unwrap().as_slice()
        ),
        (&b"one"[..], &b"one"[..])
    );
    folder.store_certificate("pem".to_owned()).await.unwrap();
    folder.store_challenge("a.test", "pem".to_owned()).await.unwrap();
    let held = folder.lock().await.unwrap();
    assert!(held.is_some());
    assert!(same.lock().await.unwrap().is_none());
    drop(held);
    assert!(same.lock().await.unwrap().is_some());
    for entry in std::fs::read_dir(place.path()).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    folder.remove_challenge("a.test").await;
    assert!(!folder.challenge("a.test").exists());
}
