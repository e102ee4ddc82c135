//! A certificate is renewed while the node serves: new handshakes see the new one, open sockets notice nothing.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::harness::tls::{Certificate, Tls};
use crate::harness::{self, Client, Node, within};

const EXPIRY: &str = "conclave_tls_certificate_expiry_timestamp_seconds";

/// Waits until handshakes are made with `certificate`, and only with it.
async fn serves(node: &Node, certificate: &Certificate) {
    let tls = Tls::new(node.listen, certificate);
    within("the new certificate", async {
        while tls.try_connect().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let stream = tls.connect().await;
    let served = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
    assert_eq!(served, certificate.der());
}

async fn reloads(node: &Node, result: &str) -> f64 {
    node.metrics()
        .await
        .sum("conclave_tls_reloads_total", &[("result", result)])
}

async fn still_speaks(client: &mut Client) {
    client.chat("lobby", "still here").await;
}

/// Writes beside and renames, as a careful operator does.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn until_2049() -> Certificate {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2049, 6, 1);
    let key = KeyPair::generate().unwrap();
    Certificate {
        pem: params.self_signed(&key).unwrap().pem(),
        key_pem: key.serialize_pem(),
    }
}

#[tokio::test]
async fn new_files_are_served_to_new_handshakes_and_open_sockets_live_on() {
    for runtime in ["per-core", "shared"] {
        let node = harness::node().runtime(runtime).start().await;
        let before = node.metrics().await.sum(EXPIRY, &[]);
        let mut old = node.client("ann").await;
        old.join("lobby").await;
        let new = until_2049();
        std::fs::write(node.folder().join("tls.crt"), &new.pem).unwrap();
        std::fs::write(node.folder().join("tls.key"), &new.key_pem).unwrap();
        serves(&node, &new).await;
        assert!(
            node.tls().try_connect().await.is_err(),
            "the old one is not served any more"
        );
        still_speaks(&mut old).await;
        let metrics = node.metrics().await;
        assert_eq!(metrics.sum(EXPIRY, &[]), 2_506_118_400.0);
        assert_ne!(before, 2_506_118_400.0);
        assert_eq!(reloads(&node, "ok").await, 1.0);
        assert_eq!(metrics.sum("conclave_connections_closed_total", &[]), 0.0);
        node.logged("the reload", |line| line["message"] == "certificate reloaded")
            .await;
        old.close(1000).await;
    }
}

#[tokio::test]
async fn a_secret_volume_swaps_a_link() {
    let (first, second, third) = (Certificate::new(), Certificate::new(), Certificate::new());
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, certificate: &Certificate| {
        let version = folder.path().join(name);
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("tls.crt"), &certificate.pem).unwrap();
        std::fs::write(version.join("tls.key"), &certificate.key_pem).unwrap();
        // As the kubelet does it: a new link beside, renamed over the old one.
        std::os::unix::fs::symlink(name, folder.path().join("..data_tmp")).unwrap();
        std::fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    put("..2026_01", &first);
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(file), folder.path().join(file)).unwrap();
    }
    let at = |file: &str| folder.path().join(file).display().to_string();
    let node = harness::node()
        .certificate(first.clone())
        .set("tls.certificate", &at("tls.crt"))
        .set("tls.key", &at("tls.key"))
        .start()
        .await;
    let mut old = node.client("ann").await;
    old.join("lobby").await;
    serves(&node, &first).await;
    put("..2026_02", &second);
    std::fs::remove_dir_all(folder.path().join("..2026_01")).unwrap();
    serves(&node, &second).await;
    put("..2026_03", &third);
    std::fs::remove_dir_all(folder.path().join("..2026_02")).unwrap();
    serves(&node, &third).await;
    assert_eq!(reloads(&node, "failed").await, 0.0);
    still_speaks(&mut old).await;
}

#[tokio::test]
async fn sighup_reads_again_what_no_watch_has_seen() {
    // The folder holds a link to a file elsewhere: what changes there is not seen by a watch on the folder.
    let elsewhere = tempfile::tempdir().unwrap();
    let first = Certificate::new();
    let real = |file: &str| elsewhere.path().join(file);
    std::fs::write(real("tls.crt"), &first.pem).unwrap();
    std::fs::write(real("tls.key"), &first.key_pem).unwrap();
    let links = tempfile::tempdir().unwrap();
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(real(file), links.path().join(file)).unwrap();
    }
    let at = |file: &str| links.path().join(file).display().to_string();
    let node = harness::node()
        .certificate(first.clone())
        .set("tls.certificate", &at("tls.crt"))
        .set("tls.key", &at("tls.key"))
        .set("tls.reload_poll", "24h")
        .start()
        .await;
    let mut old = node.client("ann").await;
    old.join("lobby").await;
    let second = Certificate::new();
    replace(&real("tls.key"), &second.key_pem);
    replace(&real("tls.crt"), &second.pem);
    serves(&node, &first).await;
    node.terminate("HUP");
    serves(&node, &second).await;
    still_speaks(&mut old).await;
    // Nothing changed since: said, and no reload.
    node.terminate("HUP");
    node.process
        .wait("the second SIGHUP", |seen| {
            let said = seen.stdout.iter().filter(|line| line.contains("SIGHUP")).count();
            (said >= 2).then_some(())
        })
        .await;
    still_speaks(&mut old).await;
    assert_eq!(reloads(&node, "ok").await, 1.0);
}

#[tokio::test]
async fn what_no_watch_sees_is_found_by_polling() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (first, second) = (Certificate::new(), Certificate::new());
    let real = |file: &str| elsewhere.path().join(file);
    std::fs::write(real("tls.crt"), &first.pem).unwrap();
    std::fs::write(real("tls.key"), &first.key_pem).unwrap();
    let links = tempfile::tempdir().unwrap();
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(real(file), links.path().join(file)).unwrap();
    }
    let at = |file: &str| links.path().join(file).display().to_string();
    let node = harness::node()
        .certificate(first.clone())
        .set("tls.certificate", &at("tls.crt"))
        .set("tls.key", &at("tls.key"))
        .set("tls.reload_poll", "1s")
        .start()
        .await;
    replace(&real("tls.key"), &second.key_pem);
    replace(&real("tls.crt"), &second.pem);
    serves(&node, &second).await;
}

#[tokio::test]
async fn a_bad_pair_keeps_the_old_one_says_so_and_is_counted() {
    let node = harness::node().start().await;
    let old = node.certificate.clone();
    let other = Certificate::new();
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let expiry = node.metrics().await.sum(EXPIRY, &[]);
    let (crt, key) = (node.folder().join("tls.crt"), node.folder().join("tls.key"));
    let canary = "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n";
    let bad: [(&str, &dyn Fn(), &str); 6] = [
        ("another key", &|| replace(&key, &other.key_pem), "does not belong"),
        ("a garbage key", &|| replace(&key, canary), "not a usable private key"),
        ("an empty key", &|| replace(&key, ""), "not a usable private key"),
        ("a garbage certificate", &|| replace(&crt, "garbage"), "no certificate"),
        (
            "half a certificate",
            &|| replace(&crt, &old.pem[..old.pem.len() / 2]),
            "tls.crt",
        ),
        (
            "no certificate",
            &|| std::fs::remove_file(&crt).unwrap(),
            "No such file",
        ),
    ];
    for (name, spoil, why) in bad {
        // Each begins with the good pair, and is looked at when asked: bursts of changes would be one.
        replace(&key, &old.key_pem);
        replace(&crt, &old.pem);
        let failed = reloads(&node, "failed").await;
        spoil();
        node.terminate("HUP");
        node.metric_reaches("conclave_tls_reloads_total", &[("result", "failed")], failed + 1.0)
            .await;
        let told = |line: &Value| {
            line["level"] == "WARN"
                && line["message"]
                    .as_str()
                    .is_some_and(|said| said.contains("not reloaded"))
                && line["error"].as_str().is_some_and(|error| error.contains(why))
        };
        node.logged(name, told).await;
        serves(&node, &old).await;
        still_speaks(&mut ann).await;
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum(EXPIRY, &[]), expiry);
    let said = node.process.seen().stdout.join("\n");
    assert!(!said.contains("Y2FuYXJ5") && !said.contains("PRIVATE KEY"));
    // And back to health without a restart.
    let new = Certificate::new();
    replace(&key, &new.key_pem);
    replace(&crt, &new.pem);
    serves(&node, &new).await;
    still_speaks(&mut ann).await;
}
