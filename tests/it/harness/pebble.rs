//! Pebble, Let's Encrypt's ACME server for tests, with a DNS in which every name is this machine.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::ports::Port;
use super::process::Process;
use super::tls::{Certificate, Tls};
use super::{Ask, needs, within};

/// An authority that can be stopped and started again on the same port; it has another root then.
pub struct Pebble {
    folder: TempDir,
    own: Certificate,
    listen: Port,
    management: Port,
    dns: Port,
    _challtestsrv: Process,
    _challtestsrv_management: Port,
    pebble: Option<Process>,
}

impl Pebble {
    /// Not started yet. It looks for challenges on `tls_port` of this machine; its certificates are valid for so long.
    pub fn new(tls_port: u16, validity_s: u32) -> Self {
        needs("pebble", "pebble");
        let folder = tempfile::tempdir().unwrap();
        let own = Certificate::new();
        let (listen, management, dns) = (Port::free(), Port::free(), Port::free());
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("own.crt"), &own.pem).unwrap();
        std::fs::write(at("own.key"), &own.key_pem).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", listen.number),
            "managementListenAddress": format!("127.0.0.1:{}", management.number),
            "certificate": at("own.crt"),
            "privateKey": at("own.key"),
            "httpPort": 1,
            "tlsPort": tls_port,
            "certificateValidityPeriod": validity_s,
        }});
        std::fs::write(at("pebble.json"), config.to_string()).unwrap();
        let challtestsrv_management = Port::free();
        let mut command = Command::new("pebble-challtestsrv");
        command
            .args([
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-defaultIPv4",
                "127.0.0.1",
            ])
            .args(["-defaultIPv6", "", "-dns01", &format!("127.0.0.1:{}", dns.number)])
            .args(["-management", &format!("127.0.0.1:{}", challtestsrv_management.number)]);
        Self {
            folder,
            own,
            listen,
            management,
            dns,
            _challtestsrv: Process::start(&mut command),
            _challtestsrv_management: challtestsrv_management,
            pebble: None,
        }
    }

    /// What `acme.directory` is.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.listen.number)
    }

    /// What `acme.ca_file` holds.
    pub fn own_pem(&self) -> &str {
        &self.own.pem
    }

    pub async fn start(&mut self) {
        let mut command = Command::new("pebble");
        command
            .args(["-config", "pebble.json"])
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns.number)])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // Each order is proven anew.
            .env("PEBBLE_AUTHZREUSE", "0")
            .current_dir(self.folder.path());
        let pebble = Process::start(&mut command);
        pebble.said("ACME directory available").await;
        // It says so before it listens.
        for port in [self.listen.number, self.management.number] {
            within("pebble's listener", async {
                while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
        self.pebble = Some(pebble);
    }

    pub fn stop(&mut self) {
        self.pebble = None;
    }

    /// The root of its certificates, since its last start.
    pub async fn root(&self) -> Certificate {
        let tls = Tls::new(([127, 0, 0, 1], self.management.number).into(), &self.own);
        let answer = Ask::new(tls, "GET", "/roots/0").answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Certificate {
            pem: answer.body,
            key_pem: String::new(),
        }
    }
}
