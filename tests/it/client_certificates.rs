//! Certificates of clients: asked for, verified, revoked; the token is needed all the same.

use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::tls::{Certificate, Tls};
use crate::harness::{self, Builder, Node, within};

const CERTIFICATES: &str = "conclave_client_certificates_total";

/// An authority of clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a machine, good until this year.
    fn client(&self, serial: u64, year: i32) -> Certificate {
        let mut params = CertificateParams::new(vec![format!("machine-{serial}.example.test")]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Certificate {
            pem: params.signed_by(&key, &self.0).unwrap().pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The list of those that are good no longer.
    fn revoking(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn node(mode: &str, authority: &Authority) -> Builder {
    harness::node()
        .set("tls.client_auth", mode)
        .set("tls.client_ca_file", "clients.crt")
        .file("clients.crt", authority.pem())
}

/// Whether a request is answered: in TLS 1.3 a client learns of a refusal only when it reads.
async fn is_served(tls: &Tls) -> bool {
    let Ok(mut stream) = tls.try_connect().await else {
        return false;
    };
    let sent = stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let read = within("an answer or the end", stream.read_to_end(&mut answer)).await;
    sent.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

async fn counted(node: &Node, result: &str, count: f64) {
    node.metric_reaches(CERTIFICATES, &[("result", result)], count).await;
}

#[tokio::test]
async fn required_means_a_good_one_and_a_token_all_the_same() {
    let (authority, stranger) = (Authority::new("clients"), Authority::new("strangers"));
    let node = node("required", &authority).start().await;
    for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
        let tls = || node.tls_with(&versions);
        assert!(!is_served(&tls()).await, "{versions:?}: none");
        assert!(!is_served(&tls().client_certificate(&stranger.client(1, 2099))).await);
        assert!(!is_served(&tls().client_certificate(&authority.client(2, 2021))).await);
        let good = tls().client_certificate(&authority.client(3, 2099));
        assert!(is_served(&good).await, "{versions:?}");
        // It is a machine that is known now, no user.
        let mut nobody = node.socket().tls(good.clone()).open().await;
        assert_eq!(nobody.closed().await, (1008, "token_missing".to_owned()));
        let mut ann = node
            .socket()
            .query_token(&node.token("ann"))
            .tls(good)
            .open()
            .await
            .welcomed()
            .await;
        ann.join("lobby").await;
        ann.chat("lobby", "hello").await;
    }
    counted(&node, "missing", 2.0).await;
    counted(&node, "unknown_issuer", 2.0).await;
    counted(&node, "expired", 2.0).await;
    counted(&node, "ok", 6.0).await;
    node.metric_reaches("conclave_handshakes_total", &[("result", "client_certificate")], 6.0)
        .await;
}

#[tokio::test]
async fn optional_refuses_bad_ones_only() {
    let (authority, stranger) = (Authority::new("clients"), Authority::new("strangers"));
    let node = node("optional", &authority).start().await;
    assert!(is_served(&node.tls()).await);
    assert!(is_served(&node.tls().client_certificate(&authority.client(1, 2099))).await);
    assert!(!is_served(&node.tls().client_certificate(&stranger.client(1, 2099))).await);
    counted(&node, "none", 1.0).await;
    counted(&node, "ok", 1.0).await;
    counted(&node, "unknown_issuer", 1.0).await;
}

/// Neither a session of before nor an open file keeps a revoked certificate alive.
#[tokio::test]
async fn authorities_and_revocations_are_reloaded() {
    let (authority, next) = (Authority::new("clients"), Authority::new("next"));
    let node = node("required", &authority)
        .set("tls.client_crl_file", "clients.crl")
        .file("clients.crl", authority.revoking(&[7]))
        .start()
        .await;
    let (lost, kept) = (authority.client(8, 2099), authority.client(9, 2099));
    let (lost, kept) = (
        node.tls().client_certificate(&lost),
        node.tls().client_certificate(&kept),
    );
    assert!(!is_served(&node.tls().client_certificate(&authority.client(7, 2099))).await);
    counted(&node, "revoked", 1.0).await;
    // Twice, so that a session could be resumed.
    assert!(is_served(&lost).await && is_served(&lost).await && is_served(&kept).await);
    let write = |name: &str, text: &str| replace(&node.folder().join(name), text);
    write("clients.crl", &authority.revoking(&[7, 8]));
    node.metric_reaches("conclave_tls_reloads_total", &[("result", "ok")], 1.0)
        .await;
    assert!(!is_served(&lost).await);
    assert!(is_served(&kept).await);
    // What cannot be read changes nothing.
    write("clients.crl", "garbage");
    node.terminate("HUP");
    node.metric_reaches("conclave_tls_reloads_total", &[("result", "failed")], 1.0)
        .await;
    assert!(is_served(&kept).await && !is_served(&lost).await);
    // A certificate whose issuer has no list is one of which nobody knows.
    write("clients.crl", &authority.revoking(&[7, 8]));
    write("clients.crt", &(authority.pem() + &next.pem()));
    node.metric_reaches("conclave_tls_reloads_total", &[("result", "ok")], 2.0)
        .await;
    assert!(!is_served(&node.tls().client_certificate(&next.client(1, 2099))).await);
    counted(&node, "unlisted", 1.0).await;
    write("clients.crl", &(authority.revoking(&[7, 8]) + &next.revoking(&[])));
    node.metric_reaches("conclave_tls_reloads_total", &[("result", "ok")], 3.0)
        .await;
    assert!(is_served(&node.tls().client_certificate(&next.client(1, 2099))).await);
}

/// With tools that we did not write.
#[tokio::test]
async fn openssl_and_curl_show_theirs() {
    harness::needs("openssl", "openssl");
    harness::needs("curl", "curl");
    let authority = Authority::new("clients");
    let node = node("required", &authority).start().await;
    let client = authority.client(1, 2099);
    let folder = node.folder();
    std::fs::write(folder.join("client.crt"), &client.pem).unwrap();
    std::fs::write(folder.join("client.key"), &client.key_pem).unwrap();
    let url = format!("https://localhost:{}/livez", node.listen.port());
    let to = format!("localhost:{}:127.0.0.1", node.listen.port());
    let curl = |extra: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--cacert", "tls.crt", "--resolve", &to]);
        command.args(extra).arg(&url).current_dir(folder);
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let shown = ["--cert", "client.crt", "--key", "client.key"];
    assert_eq!(curl(&shown), (true, "ok\n".to_owned()));
    assert!(!curl(&[]).0);
    let openssl = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &node.listen.to_string(),
            "-CAfile",
            "tls.crt",
            "-tls1_2",
        ])
        .args(["-cert", "client.crt", "-key", "client.key"])
        .stdin(Stdio::null())
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&openssl.stdout).into_owned();
    assert!(
        said.contains("Acceptable client certificate CA names") || said.contains("Client Certificate Types"),
        "{said}"
    );
    assert!(said.contains("Verify return code: 0"), "{said}");
}

/// Writes beside and renames, as a careful operator does.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}
