//! The server under test: where it is, and how its certificate is checked.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::Context;
use http::Uri;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use crate::cli::args::Load;
use crate::cli::trust::{AcceptAny, roots};
use crate::cli::{Environment, Failure};

/// Everything needed to open a connection, prepared once.
pub struct Target {
    /// The path is `/ws`, or `/echo` for that test.
    pub uri: Uri,
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
}

impl Target {
    /// Reads `--url`, `--ca` and `--insecure`, and refuses other machines without `--yes`.
    pub fn new(load: &Load, echo: bool, environment: &Environment) -> Result<Self, Failure> {
        let uri = parse(&load.url, echo)?;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let address = resolve(&host, uri.port_u16().unwrap_or(443))?;
        if !address.ip().is_loopback() && !load.yes {
            return Err(Failure::usage(format_args!(
                "{host} ({}) is not this machine, and a bench is a load that its owner should want\n  help: add --yes when you are that owner",
                address.ip()
            )));
        }
        let name = ServerName::try_from(host)
            .map_err(|_| Failure::usage("--url: the host is neither a name nor an address"))?;
        Ok(Self {
            uri,
            address,
            name,
            tls: Arc::new(tls(load, address.ip().is_loopback(), environment)?),
        })
    }

    /// Whether the server is on this machine.
    pub fn is_here(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// Host and port, for the report; never the query.
    pub fn shown(&self) -> String {
        format!(
            "wss://{}{}",
            self.uri.authority().map_or("", |authority| authority.as_str()),
            self.uri.path()
        )
    }
}

fn parse(url: &str, echo: bool) -> Result<Uri, Failure> {
    // The URL is not repeated in messages: somebody may have put a token into it.
    let refuse = |why: &str| Failure::usage(format_args!("--url: {why}\n  help: such as wss://127.0.0.1:8443/ws"));
    let uri: Uri = url.parse().map_err(|_| refuse("this is no URL"))?;
    if uri.scheme_str() != Some("wss") {
        return Err(refuse("expected wss://; Conclave speaks TLS only"));
    }
    if uri.query().is_some() {
        return Err(refuse("no query here; a token belongs to --token"));
    }
    let authority = uri.authority().ok_or_else(|| refuse("the host is missing"))?;
    if authority.as_str().contains('@') {
        return Err(refuse("no user or password here; a token belongs to --token"));
    }
    let path = match uri.path() {
        "/" | "/ws" if echo => "/echo",
        "/" => "/ws",
        path => path,
    };
    format!("wss://{authority}{path}")
        .parse()
        .map_err(|_| refuse("this is no URL"))
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?
        .collect();
    // `localhost` often means ::1 first, where few development servers listen.
    let found = found.iter().find(|address| address.is_ipv4()).or(found.first());
    found
        .copied()
        .ok_or_else(|| Failure::other(format_args!("{host} has no address")))
}

fn tls(load: &Load, here: bool, environment: &Environment) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS could not be set up")?;
    let mut config = if load.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny::new(provider)))
            .with_no_client_auth()
    } else {
        builder
            .with_root_certificates(roots(load.ca.as_deref(), here, environment)?)
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every handshake is a whole one: what is measured is a crowd that was never here before.
    config.resumption = Resumption::disabled();
    Ok(config)
}
