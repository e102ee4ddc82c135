//! TLS as the test wants it: version, ALPN, session tickets, buffers.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::within;

pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// A certificate of a test, with its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub pem: String,
    pub key_pem: String,
}

impl Certificate {
    /// Self-signed for `localhost` and 127.0.0.1.
    pub fn new() -> Self {
        Self::for_names(&["localhost", "127.0.0.1"])
    }

    pub fn for_names(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        Self {
            pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own PEM")
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Tls {
    address: SocketAddr,
    config: ClientConfig,
    receive_buffer: Option<u32>,
}

impl Tls {
    /// Trusts exactly `certificate`; both versions, no ALPN.
    pub fn new(address: SocketAddr, certificate: &Certificate) -> Self {
        Self::with_versions(address, certificate, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(
        address: SocketAddr,
        certificate: &Certificate,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        Self::with_provider(
            address,
            certificate,
            rustls::crypto::aws_lc_rs::default_provider(),
            versions,
        )
    }

    pub fn with_provider(
        address: SocketAddr,
        certificate: &Certificate,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der()).expect("a certificate of ours");
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions that rustls knows")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            config,
            receive_buffer: None,
        }
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Hands the connection's secrets to `log`.
    pub fn key_log(mut self, log: Arc<dyn rustls::KeyLog>) -> Self {
        self.config.key_log = log;
        self
    }

    /// SO_RCVBUF, so that a reader that stops is felt soon.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// The configuration, for a connection that the test drives itself.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::new(self.config.clone())
    }

    pub async fn connect(&self) -> TlsStream {
        self.try_connect().await.expect("a TLS handshake")
    }

    pub async fn try_connect(&self) -> std::io::Result<TlsStream> {
        let connector = TlsConnector::from(self.config());
        let name = ServerName::try_from("localhost").unwrap();
        let stream = tcp(self.address, self.receive_buffer).await?;
        within("a TLS handshake", connector.connect(name, stream)).await
    }
}

pub async fn tcp(address: SocketAddr, receive_buffer: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = within("a TCP connection", socket.connect(address)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
