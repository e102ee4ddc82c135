//! A token for each connection.

use std::time::{Duration, SystemTime};

use crate::cli::args::Load;
use crate::cli::token::{self, Wish};
use crate::cli::{Environment, Failure, dev};
use crate::config::{self, Key};

/// Longer than any run.
const LIFE: Duration = Duration::from_secs(2 * 86_400);

/// Where tokens come from.
pub enum Tokens {
    /// All connections are one user.
    One(String),
    /// Every connection is a user of its own.
    Minted(Box<Key>),
}

impl Tokens {
    /// `--token`, else the key of `--config`, else that of `conclave dev`.
    pub fn new(load: &Load, environment: &Environment) -> Result<Self, Failure> {
        if let Some(token) = &load.token {
            return Ok(Self::One(token.trim().to_owned()));
        }
        let sources = environment.sources(load.config.clone());
        let key = if sources.file.is_some() {
            let loaded = config::load(&sources)?;
            token::choose(&loaded.config.auth.keys, None)?.clone()
        } else {
            dev::key(environment).ok_or_else(|| {
                Failure::usage("no token to connect with\n  help: pass --token TOKEN, or --config FILE to mint one per connection, or run conclave dev")
            })?
        };
        Ok(Self::Minted(Box::new(key)))
    }

    /// The token of one connection.
    pub fn mint(&self, connection: usize) -> Result<String, Failure> {
        let key = match self {
            Self::One(token) => return Ok(token.clone()),
            Self::Minted(key) => key,
        };
        let sub = format!("bench-{connection}");
        let wish = Wish {
            sub: &sub,
            name: None,
            ttl: LIFE,
            rooms: &[],
            probe: false,
            claims: &[],
        };
        Ok(token::mint(&wish, key, SystemTime::now())?.token)
    }
}
