//! TLS as the test wants it: version, ALPN, session tickets, buffers.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
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
    name: String,
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
            name: "localhost".to_owned(),
            config,
            receive_buffer: None,
        }
    }

    /// The name that the server is called by.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Takes whatever certificate the server shows.
    pub fn trusting(mut self) -> Self {
        let anyone = Arc::new(Anyone(rustls::crypto::aws_lc_rs::default_provider()));
        self.config.dangerous().set_certificate_verifier(anyone);
        self
    }

    /// Shows a certificate of its own when it is asked for one.
    pub fn client_certificate(mut self, certificate: &Certificate) -> Self {
        let key =
            rustls::pki_types::PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("our own PEM");
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key that signs");
        let certified = rustls::sign::CertifiedKey::new(vec![certificate.der()], key);
        self.config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        self
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
        let name = ServerName::try_from(self.name.clone()).unwrap();
        let stream = tcp(self.address, self.receive_buffer).await?;
        within("a TLS handshake", connector.connect(name, stream)).await
    }
}

/// Verifies nothing.
#[derive(Debug)]
struct Anyone(CryptoProvider);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
