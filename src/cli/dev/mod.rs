//! `conclave dev`: a whole server from nothing, for this machine only.

mod banner;
mod certificate;
mod state;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::args::{Dev, Loudness};
use super::paint::Paint;
use super::token::{self, Wish};
use super::{Environment, Failure};
use crate::config::{self, Config, Key, KeySource, Listen, LogFormat};
use crate::runtime::{self, Start};
use banner::Banner;
use certificate::Certificate;
use state::State;

const SECRET: &str = "jwt.secret";
const SESSION_SECRET: &str = "session.secret";
/// A working day, so that the printed token is good until its terminal is closed.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Blocks until the server has drained.
pub fn run(args: &Dev, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    loopback_only("--listen", args.listen)?;
    loopback_only("--admin-listen", args.admin_listen)?;
    must_be_free("--listen", args.listen)?;
    must_be_free("--admin-listen", args.admin_listen)?;
    let kept = Kept::prepare(environment, SystemTime::now())?;
    let token = token(&args.name, &kept)?;
    let config = configure(args, loudness, &kept);
    let paint = Paint::for_stream(&std::io::stdout(), environment);
    let on_ready = move |ready: runtime::Ready| {
        let banner = Banner {
            ready,
            token,
            certificate: kept.certificate,
            paint,
        };
        banner.print(loudness.quiet);
    };
    runtime::run(
        config,
        Start {
            on_ready: Some(Box::new(on_ready)),
            ..Start::default()
        },
    )?;
    Ok(())
}

/// What was generated, now or in an earlier run.
struct Kept {
    certificate: Certificate,
    secret_file: PathBuf,
    session_secret: String,
}

impl Kept {
    fn prepare(environment: &Environment, now: SystemTime) -> anyhow::Result<Self> {
        let directory = environment
            .state_directory()
            .context("nowhere to keep the certificate\n  help: set CONCLAVE_STATE_DIR to a folder of your own")?;
        let state = State::open(std::path::absolute(directory).context("the state directory has no absolute path")?)?;
        secret(&state, SECRET)?;
        Ok(Self {
            certificate: certificate::prepare(&state, now)?,
            secret_file: state.path(SECRET),
            session_secret: secret(&state, SESSION_SECRET)?,
        })
    }
}

/// 32 random bytes as base64url, so that no byte of it is taken for a trailing newline.
fn secret(state: &State, name: &str) -> anyhow::Result<String> {
    if let Some(secret) = state.read(name).filter(|text| text.len() >= 43 && text.is_ascii()) {
        return Ok(secret);
    }
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    state.write(name, &secret)?;
    Ok(secret)
}

/// The key of `dev`, for verbs that talk to it without a configuration; `None` before its first run.
pub fn key(environment: &Environment) -> Option<Key> {
    let secret_file = environment.state_directory()?.join(SECRET);
    secret_file.exists().then(|| signing_key(secret_file))
}

/// The certificate authority of `dev`; `None` before its first run.
pub fn authority(environment: &Environment) -> Option<PathBuf> {
    let path = certificate::authority_path(&environment.state_directory()?);
    path.exists().then_some(path)
}

fn signing_key(secret_file: PathBuf) -> Key {
    Key {
        algorithm: "HS256".to_owned(),
        source: KeySource::SecretFile(secret_file),
        kid: None,
        issuer: None,
        audience: Vec::new(),
        user_prefix: String::new(),
        set_in: "conclave dev".to_owned(),
    }
}

fn token(name: &str, kept: &Kept) -> Result<String, Failure> {
    let wish = Wish {
        sub: "dev",
        name: Some(name),
        ttl: TOKEN_LIFE,
        rooms: &[],
        probe: false,
        claims: &[],
    };
    let now = SystemTime::now();
    let minted = token::mint(&wish, &signing_key(kept.secret_file.clone()), now)?;
    Ok(minted.token)
}

/// The defaults, made comfortable for one developer.
fn configure(args: &Dev, loudness: Loudness, kept: &Kept) -> Config {
    let mut config = config::default_config();
    config.server.listen = Listen::Tcp(args.listen);
    config.server.admin_listen = args.admin_listen;
    config.server.page = true;
    config.tls.certificate = kept.certificate.certificate.clone();
    config.tls.key = kept.certificate.key.clone();
    config.origin.allow = args.origin.clone();
    config.auth.keys = vec![signing_key(kept.secret_file.clone())];
    config.session.enabled = true;
    config.session.secret = Some(kept.session_secret.clone().into());
    config.echo.enabled = true;
    // Nobody waits for a balancer on a laptop.
    config.drain.grace = Duration::ZERO;
    config.drain.time = Duration::from_secs(2);
    config.log.format = LogFormat::Human;
    config.log.level = loudness.log_level().map_or("info", |(level, _)| level).to_owned();
    config
}

/// The certificate names these two, and nothing else may reach a server with a printed token.
fn loopback_only(flag: &str, address: SocketAddr) -> Result<(), Failure> {
    let ip = address.ip();
    if ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "{flag} {address}: dev serves this machine only, on 127.0.0.1 or [::1]\n  help: for other machines, conclave config init conclave.toml and conclave serve --config conclave.toml"
    )))
}

/// Said before anything starts; the runtime would find out later and with less to suggest.
fn must_be_free(flag: &str, address: SocketAddr) -> Result<(), Failure> {
    if address.port() == 0 {
        return Ok(());
    }
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    let ip = address.ip();
    let any = SocketAddr::new(ip, 0);
    Err(Failure::other(match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "{address} is in use, perhaps by another conclave dev\n  help: stop it, or choose another port: {flag} {any} takes any free one"
        ),
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{address}: ports below 1024 need privileges\n  help: choose another port: {flag} {any} takes any free one"
            )
        }
        _ => format!("cannot listen on {address}: {error}\n  help: {flag} {any}"),
    }))
}

#[cfg(test)]
mod tests;
